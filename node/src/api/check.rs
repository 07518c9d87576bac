//! Checks what people ask for, where they ask for it: everything after this trusts it.

use rialto_protocol::compose::CONSTRAINTS_MAX;
use rialto_protocol::market::constraint::{Constraint, VALUES_MAX};
use rialto_protocol::model::app::{DependencyFault, is_dns_label};
use rialto_protocol::model::resources::{
    CPU_MILLIS, GPU_PREFIX, GPU_SHARE, GPU_WHOLE, GPUS, GPUS_MAX, MEMORY_BYTES, PORT_PREFIX,
};
use rialto_protocol::model::{AppSpec, PortSpec, Resources, ServiceSpec};
use rialto_protocol::wire;

use super::problem::Problem;

/// The most bytes of a whole app, encoded.
pub const SPEC_BYTES_MAX: usize = 200 << 10;
/// The most replicas of a service, and tasks of an app.
pub const REPLICAS_MAX: u32 = 100_000;
const IMAGE_NAME_MAX: usize = 255;
const PORTS_MAX: usize = 100;
/// The longest name of a label, bytes.
const LABEL_MAX: usize = 63;
const GRACE_MS_MAX: u64 = 86_400_000;
/// A petabyte of memory, a billion cores: more is a mistake, and sums of less never overflow.
const AMOUNT_MAX: u64 = 1 << 50;

/// Whether `name` can name an app. `machine` cannot: `NAME.machine.rialto.internal` are the machines.
pub fn check_app_name(name: &str) -> Result<(), Problem> {
    if !is_dns_label(name) {
        return Err(not_a_label(name).at("app"));
    }
    if name == "machine" {
        return Err(Problem::invalid("no app can be named `machine`: its names in DNS would be those of machines")
            .at("app")
            .hint("choose another name"));
    }
    Ok(())
}

/// Whether `name` can name a service.
pub fn check_service_name(name: &str) -> Result<(), Problem> {
    if is_dns_label(name) { Ok(()) } else { Err(not_a_label(name).at("service")) }
}

/// Whether so many replicas can be wanted.
pub fn check_replicas(replicas: u32) -> Result<(), Problem> {
    if replicas <= REPLICAS_MAX {
        return Ok(());
    }
    Err(Problem::invalid(format!("{replicas} replicas are more than {REPLICAS_MAX}")).at("replicas"))
}

/// Whether `name` can name an image: what a path or a shell would read differently cannot.
pub fn check_image_name(name: &str) -> Result<(), Problem> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    let parts_sound = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if name.len() <= IMAGE_NAME_MAX && name.chars().all(sound) && parts_sound && !name.starts_with('-') {
        return Ok(());
    }
    Err(Problem::invalid(format!("`{}` is no name of an image", short(name))).at("image"))
}

/// Whether an app can be wanted so; the place of a fault is the path of the field.
pub fn check_spec(spec: &AppSpec) -> Result<(), Problem> {
    if spec.services.is_empty() {
        return Err(Problem::invalid("the app has no service").at("spec.services"));
    }
    let bytes = wire::encode(spec).len();
    if bytes > SPEC_BYTES_MAX {
        let message = format!("the app takes {bytes} bytes where at most {SPEC_BYTES_MAX} are allowed");
        return Err(Problem::invalid(message).at("spec"));
    }
    for (name, service) in &spec.services {
        let at = |field: &str| format!("spec.services.{}{field}", short(name));
        if !is_dns_label(name) {
            return Err(not_a_label(name).at(at("")));
        }
        if let Err((field, message)) = check_service(service) {
            return Err(Problem::invalid(message).at(at(&field)));
        }
    }
    if let Some(DependencyFault { service, message, .. }) = spec.dependency_fault() {
        return Err(Problem::invalid(message).at(format!("spec.services.{}.depends_on", short(&service))));
    }
    let tasks: u64 = spec.services.values().map(|service| u64::from(service.replicas)).sum();
    if tasks > u64::from(REPLICAS_MAX) {
        return Err(Problem::invalid(format!("{tasks} tasks are more than {REPLICAS_MAX}")).at("spec.services"));
    }
    Ok(())
}

type Fault = (String, String);

fn check_service(service: &ServiceSpec) -> Result<(), Fault> {
    let fault = |field: &str, message: String| Err((field.to_string(), message));
    if let Err(problem) = check_image_name(&service.image) {
        return fault(".image", problem.body().message.clone());
    }
    if service.replicas > REPLICAS_MAX {
        return fault(".replicas", format!("{} replicas are more than {REPLICAS_MAX}", service.replicas));
    }
    if let Some(n) = service.command.iter().position(|word| word.contains('\0')) {
        return fault(&format!(".command[{n}]"), "a word of a command cannot hold a NUL".into());
    }
    if service.command.first().is_some_and(String::is_empty) {
        return fault(".command[0]", "the program has no name".into());
    }
    for (key, value) in &service.environment {
        let sound = !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0');
        if !sound {
            let message = "a variable has a name without `=`, and neither name nor value holds a NUL";
            return fault(&format!(".environment.{}", short(key)), message.into());
        }
    }
    check_ports(&service.ports)?;
    check_constraints(&service.constraints)?;
    check_reservations(&service.reservations)?;
    check_limits(&service.limits)?;
    if let Some((field, message)) = service.placement_fault().or_else(|| service.guard_fault()) {
        return fault(&format!(".{field}"), message);
    }
    if let Some((field, message)) = service.container.fault() {
        return fault(&format!(".container.{field}"), message);
    }
    match service.stop_grace_ms {
        Some(grace) if grace > GRACE_MS_MAX => fault(".stop_grace_ms", format!("{grace} ms are more than a day")),
        _ => Ok(()),
    }
}

fn check_ports(ports: &[PortSpec]) -> Result<(), Fault> {
    if ports.len() > PORTS_MAX {
        return Err((".ports".into(), format!("{} ports are more than {PORTS_MAX}", ports.len())));
    }
    for (n, port) in ports.iter().enumerate() {
        let fault = |field: &str, message: String| Err((format!(".ports[{n}].{field}"), message));
        if !["tcp", "udp"].contains(&port.protocol.as_str()) {
            return fault("protocol", format!("`{}` is neither tcp nor udp", short(&port.protocol)));
        }
        if port.host == Some(0) {
            return fault("host", "0 is no port; leave it out to have one chosen".into());
        }
        let same = |other: &PortSpec| port.host.is_some() && other.host == port.host && other.protocol == port.protocol;
        if ports[..n].iter().any(same) {
            return fault("host", format!("port {} is there twice", port.host.unwrap_or_default()));
        }
        if port.name.as_ref().is_some_and(|name| !is_dns_label(name)) {
            return fault("name", "a port's name is a DNS label".into());
        }
    }
    Ok(())
}

fn check_constraints(constraints: &[Constraint]) -> Result<(), Fault> {
    if constraints.len() > CONSTRAINTS_MAX {
        return Err((
            ".constraints".into(),
            format!("{} constraints are more than {CONSTRAINTS_MAX}", constraints.len()),
        ));
    }
    for (n, constraint) in constraints.iter().enumerate() {
        let fault = |field: &str, message: String| Err((format!(".constraints[{n}].{field}"), message));
        let sound =
            |text: &str| text.trim() == text && !text.contains(['|', '=', '!']) && !text.contains(char::is_control);
        if let Some(label) = &constraint.label
            && (label.is_empty() || label.len() > LABEL_MAX || !sound(label))
        {
            return fault("label", format!("`{}` is no label of a machine", short(label)));
        }
        if constraint.values.is_empty() || constraint.values.len() > VALUES_MAX {
            return fault("values", format!("{} values, where there are 1 to {VALUES_MAX}", constraint.values.len()));
        }
        if let Some(at) = constraint.values.iter().position(|value| value.is_empty() || value.len() > 255) {
            return fault(&format!("values[{at}]"), "a value has 1 to 255 bytes".into());
        }
        if let Some(at) =
            constraint.values.iter().position(|value| value.trim() != value || value.contains(['|', '\n']))
        {
            return fault(&format!("values[{at}]"), format!("`{}` can be no value", short(&constraint.values[at])));
        }
    }
    Ok(())
}

/// Ports and single GPUs are dimensions of the machine's own account: they are asked for in other ways.
fn check_reservations(reservations: &Resources) -> Result<(), Fault> {
    check_resources(".reservations", reservations)?;
    for (name, amount) in &reservations.0 {
        let fault = |message: String| Err((format!(".reservations.{}", short(name)), message));
        match name.as_str() {
            GPUS if *amount > GPUS_MAX as u64 => return fault(format!("{amount} GPUs are more than {GPUS_MAX}")),
            GPU_SHARE if *amount > GPU_WHOLE => {
                return fault(format!(
                    "{amount} thousandths are more than one GPU has; whole ones are asked for as `gpu`"
                ));
            }
            name if name.starts_with(GPU_PREFIX) => {
                return fault("no task can choose its GPU: the machine does; ask for `gpu` or `gpu_milli`".into());
            }
            name if name.starts_with(PORT_PREFIX) => return fault("a host port is asked for in `ports`".into()),
            _ => {}
        }
    }
    Ok(())
}

/// Only what the kernel can enforce.
fn check_limits(limits: &Resources) -> Result<(), Fault> {
    check_resources(".limits", limits)?;
    match limits.0.keys().find(|name| ![CPU_MILLIS, MEMORY_BYTES, "pids"].contains(&name.as_str())) {
        Some(name) => {
            Err((format!(".limits.{}", short(name)), "only cpu_millis, memory_bytes and pids can be limited".into()))
        }
        None => Ok(()),
    }
}

fn check_resources(field: &str, resources: &Resources) -> Result<(), Fault> {
    for (name, amount) in &resources.0 {
        let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:-.".contains(c);
        let at = format!("{field}.{}", short(name));
        if name.is_empty() || name.len() > 63 || !name.chars().all(sound) {
            return Err((at, "no resource can have this name".into()));
        }
        if *amount > AMOUNT_MAX {
            return Err((at, format!("{amount} is more than any machine has")));
        }
    }
    Ok(())
}

fn not_a_label(name: &str) -> Problem {
    Problem::invalid(format!("`{}` is no DNS label", short(name)))
        .hint("1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end")
}

/// At most 64 characters of what somebody sent, with nothing that would move a terminal's cursor.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(64).flat_map(char::escape_default).collect();
    if text.chars().nth(64).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn spec(change: impl FnOnce(&mut ServiceSpec)) -> AppSpec {
        let mut service = ServiceSpec { image: "host".into(), replicas: 1, ..Default::default() };
        change(&mut service);
        AppSpec { services: BTreeMap::from([("web".into(), service)]), single_run: false }
    }

    fn constraint(label: &str, values: &[&str]) -> Constraint {
        let values = values.iter().map(ToString::to_string).collect();
        Constraint { label: Some(label.into()), equal: true, values }
    }

    fn port(host: u16, protocol: &str) -> PortSpec {
        PortSpec { container: 80, host: Some(host), protocol: protocol.into(), ..PortSpec::default() }
    }

    #[test]
    fn a_sound_app_passes() {
        assert_eq!(check_spec(&spec(|_| {})), Ok(()));
        assert_eq!(check_spec(&spec(|service| service.ports = vec![port(80, "tcp"), port(81, "udp")])), Ok(()));
        let gpus = |s: &mut ServiceSpec| {
            s.reservations.set("gpu", 2);
            s.reservations.set("licence", 1);
            s.constraints = vec![constraint("gpu_spec", &["a100", "h100"])];
        };
        assert_eq!(check_spec(&spec(gpus)), Ok(()));
    }

    #[test]
    fn each_fault_is_named_by_its_field() {
        type Change = fn(&mut ServiceSpec);
        let cases: [(Change, &str); 28] = [
            (|s| s.image = String::new(), ".image"),
            (|s| s.image = "../../etc".into(), ".image"),
            (|s| s.image = "web\n".into(), ".image"),
            (|s| s.replicas = 100_001, ".replicas"),
            (|s| s.command = vec!["a".into(), "b\0".into()], ".command[1]"),
            (|s| s.command = vec!["".into()], ".command[0]"),
            (|s| drop(s.environment.insert("".into(), "x".into())), ".environment."),
            (|s| drop(s.environment.insert("A=B".into(), "x".into())), ".environment.A=B"),
            (|s| drop(s.environment.insert("A".into(), "\0".into())), ".environment.A"),
            (|s| s.ports = vec![port(80, "sctp")], ".ports[0].protocol"),
            (|s| s.ports = vec![port(0, "tcp")], ".ports[0].host"),
            (|s| s.ports = vec![port(80, "tcp"), port(80, "tcp")], ".ports[1].host"),
            (|s| s.limits.set("cpu_millis", u64::MAX), ".limits.cpu_millis"),
            (|s| s.reservations.set("Kühe", 1), ".reservations.K\\u{fc}he"),
            (|s| s.stop_grace_ms = Some(u64::MAX), ".stop_grace_ms"),
            (|s| s.constraints = vec![constraint("zone", &["a"]); 33], ".constraints"),
            (|s| s.constraints = vec![constraint("", &["a"])], ".constraints[0].label"),
            (|s| s.constraints = vec![constraint("a == b", &["a"])], ".constraints[0].label"),
            (|s| s.constraints = vec![constraint("zone", &["a"]), constraint("zone", &[])], ".constraints[1].values"),
            (|s| s.constraints = vec![constraint("zone", &["a"; 33])], ".constraints[0].values"),
            (|s| s.constraints = vec![constraint("zone", &["a", ""])], ".constraints[0].values[1]"),
            (|s| s.constraints = vec![constraint("zone", &["a|b"])], ".constraints[0].values[0]"),
            (|s| s.reservations.set("gpu", 65), ".reservations.gpu"),
            (|s| s.reservations.set("gpu_milli", 1001), ".reservations.gpu_milli"),
            (|s| s.reservations.set("gpu_milli:0", 100), ".reservations.gpu_milli:0"),
            (|s| s.reservations.set("port:80", 1), ".reservations.port:80"),
            (|s| s.limits.set("gpu", 1), ".limits.gpu"),
            (|s| s.limits.set("licence", 1), ".limits.licence"),
        ];
        for (change, field) in cases {
            let problem = check_spec(&spec(change)).expect_err(field);
            assert_eq!(problem.body().place.as_deref(), Some(&*format!("spec.services.web{field}")));
        }
    }

    #[test]
    fn bounds_hold_for_the_whole() {
        assert!(check_spec(&AppSpec::default()).is_err());
        let big = spec(|service| drop(service.environment.insert("A".into(), "x".repeat(SPEC_BYTES_MAX))));
        assert_eq!(check_spec(&big).unwrap_err().body().place.as_deref(), Some("spec"));
        let mut two = spec(|service| service.replicas = 60_000);
        two.services.insert("db".into(), two.services["web"].clone());
        assert!(check_spec(&two).is_err());
        let mut misnamed = spec(|_| {});
        misnamed.services.insert("Web".into(), two.services["web"].clone());
        assert!(check_spec(&misnamed).is_err());
        for bad in ["", "machine", "a.b", "-a", "a-", "A", &"a".repeat(64)] {
            assert!(check_app_name(bad).is_err(), "{bad:?}");
        }
    }
}
