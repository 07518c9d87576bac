//! Networks of tasks: names, services across machines, isolation, published ports, and nothing left behind.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use rialto_chaos::netns::{Lab, Machine, until};

use crate::{PATIENCE, app_file, cluster_of, exactly, live, turn};

/// A dead task is gone from the map of a service, anywhere, after its claim has changed.
const GONE_FROM_MAP: Duration = Duration::from_secs(1);
/// Two services; each task of the second asks the first by its bare name, again and again, one on each machine.
const SHOP: &str = "\
services:
  web:
    image: web
    ports: ['18000:8080']
    deploy: {replicas: 3}
  client:
    image: host
    command: [sh, -c, 'while :; do curl -s -m 2 http://web:8080/ || echo failed; sleep 0.1; done']
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
";

fn deploy(lab: &Lab, at: usize, app: &str, text: &str) {
    let file = app_file(lab, app, text);
    lab.machine(at).done(&["deploy", "--app", app, "-f", &file.to_string_lossy()]).unwrap();
}

/// Waits until a task has got answers of all tasks of `web`.
fn hears_all(machine: &Machine, task: &str, web: &str, count: usize) {
    until(&format!("{task} hearing {count} of {web}"), PATIENCE, || {
        let said = machine.done(&["logs", task]).map_err(|error| error.to_string())?.stdout;
        let heard: BTreeSet<&str> = said.lines().filter_map(|line| line.split(" at ").next()).collect();
        let all = (1..=count).all(|slot| heard.iter().any(|page| page.ends_with(&format!("{web}.{slot}"))));
        if all { Ok(()) } else { Err(format!("{heard:?}")) }
    })
    .unwrap();
}

/// The rules of a machine, as text.
fn rules(machine: &Machine) -> String {
    let output = machine.inside("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Kills all processes of a claim's container.
fn kill_task(claim: &str) {
    let mut pids = BTreeSet::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for peer in std::fs::read_dir(hierarchy.path().join("rialto")).into_iter().flatten().flatten() {
            let procs = std::fs::read_to_string(peer.path().join(claim).join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    assert!(!pids.is_empty(), "the container of {claim} is there");
    for pid in pids {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
    }
}

#[test]
fn services_reach_each_other_by_name_and_other_apps_do_not() {
    let Some((_turn, lab)) = cluster_of(3, 3) else { return };
    lab.import_web(0).unwrap();
    deploy(&lab, 1, "shop", SHOP);
    let (rows, _) = lab.machine(0).ps_until("all", PATIENCE, |rows| live(rows, "shop").len() == 6).unwrap();
    let clients: Vec<_> = rows.iter().filter(|row| row.service == "client").collect();
    assert_eq!(clients.iter().map(|row| row.machine.clone()).collect::<BTreeSet<_>>().len(), 3, "{rows:?}");
    for client in clients {
        hears_all(lab.machine(0), &client.task, "shop.web", 3);
    }

    // Of another app nobody gets in, neither by the service's address nor by a task's.
    for name in ["web.shop", "1.web.shop"] {
        let url = format!("http://{name}:8080/");
        let output = lab.machine(2).cli(&["run", "host", "--", "curl", "-s", "-m", "1", &url]).unwrap();
        assert_eq!(output.code, 28, "nothing answers, and nothing refuses: {output:?}");
    }
    // Who shares a network with it does.
    let shared = "networks: {town: {external: true}}\nservices:\n";
    let open = "  page:\n    image: web\n    networks: [town]\n    ports: ['8080']\n";
    deploy(&lab, 0, "open", &format!("{shared}{open}"));
    let asks = "[sh, -c, 'while :; do curl -s -m 2 http://page.open:8080/; sleep 0.1; done']";
    deploy(&lab, 2, "guest", &format!("{shared}  ask:\n    image: host\n    networks: [town]\n    command: {asks}\n"));
    hears_all(lab.machine(1), "guest.ask.1", "open.page", 1);
}

#[test]
fn published_ports_answer_everywhere_and_the_dead_are_left_out() {
    let Some((_turn, mut lab)) = cluster_of(3, 4) else { return };
    lab.import_web(0).unwrap();
    let web = SHOP.split("  client:").next().unwrap();
    deploy(&lab, 0, "shop", web);
    lab.machine(0).ps_until("three", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();

    // From outside and from within, at every machine; all tasks take their turns.
    let outside = lab.machine(3);
    for machine in &lab.machines()[..3] {
        let address = SocketAddr::from((machine.address(), 18_000));
        for from in [outside, machine, lab.machine(0)] {
            let fetch = || from.fetch(address, "/").map_err(|error| error.to_string());
            let (page, _) = until("a published port", PATIENCE, fetch).unwrap();
            assert!(page.starts_with("shop.web."), "{page}");
        }
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 18_000));
        assert!(machine.fetch(own, "/").unwrap().starts_with("shop.web."));
        let own = SocketAddr::from((Ipv6Addr::LOCALHOST, 18_000));
        assert!(machine.fetch(own, "/").unwrap().starts_with("shop.web."));
    }
    let heard: BTreeSet<String> =
        (0..40).map(|_| outside.fetch((lab.machine(1).address(), 18_000).into(), "/").unwrap()).collect();
    assert_eq!(heard.len(), 3, "{heard:?}");

    // A second app cannot have the port, and is told whose it is.
    let file = app_file(&lab, "rival", web);
    let refused = lab.machine(2).cli(&["deploy", "--app", "rival", "-f", &file.to_string_lossy()]).unwrap();
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("18000/tcp") && refused.stderr.contains("shop"), "{refused:?}");

    // A task speaks to the outside with its machine's address.
    let listener = outside.within(|| TcpListener::bind((outside.address(), 9_000))).unwrap().unwrap();
    let url = format!("http://{}:9000/", outside.address());
    let mut run = lab.machine(0).cli_command(&["run", "host", "--", "curl", "-s", "-m", "5", &url]).spawn().unwrap();
    let (stream, from) = listener.accept().unwrap();
    assert!(lab.machines().iter().any(|machine| machine.address() == from.ip()), "{from}");
    drop((stream, listener));
    run.wait().unwrap();

    // A task dies; its address is gone from the maps of all.
    let rows = lab.machine(0).ps().unwrap();
    let victim = live(&rows, "shop")[0].clone();
    let address = format!(": {}", victim.address.clone().unwrap());
    let is_mapped =
        |machine: &Machine| rules(machine).lines().any(|line| line.contains("numgen") && line.contains(&address));
    assert!(lab.machines()[..3].iter().all(is_mapped), "{}", rules(lab.machine(0)));
    let died = Instant::now();
    kill_task(victim.claim.as_deref().unwrap());
    for machine in &lab.machines()[..3] {
        let look = || if is_mapped(machine) { Err("there".into()) } else { Ok(()) };
        until("a dead task gone from the map", PATIENCE, look).unwrap();
    }
    println!("a dead task was gone from the maps of all after {:?}", died.elapsed());
    assert!(died.elapsed() < GONE_FROM_MAP, "{:?}", died.elapsed());

    // When nothing runs any more, a peer that stops leaves nothing of its network.
    lab.machine(1).done(&["rm", "shop"]).unwrap();
    lab.machine(0).ps_until("nothing", PATIENCE, |rows| live(rows, "shop").is_empty()).unwrap();
    for at in 0..3 {
        assert_eq!(lab.machine_mut(at).stop(PATIENCE).unwrap(), 0);
        let machine = lab.machine(at);
        assert_eq!(rules(machine), "", "{}", machine.name());
        let said = |program: &str, arguments: &[&str]| {
            let output = machine.inside(program).args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let links = said("ip", &["-o", "link"]);
        assert_eq!(links.lines().count(), 2, "its loopback and its wire: {links}");
        assert_eq!(said("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim(), "0");
    }
}

#[test]
fn machines_without_a_common_segment_have_tunnels() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(2).expect("machines");
    lab.set_flags(&["--overlay", "always"]);
    lab.found_with(2).expect("a cluster");
    lab.import_web(0).unwrap();
    let apart = "services:\n  web:\n    image: web\n    ports: ['8080']\n    deploy: {replicas: 2, placement: {max_replicas_per_node: 1}}\n";
    let client = SHOP.split_once("  client:").unwrap().1.replace("replicas: 3", "replicas: 2");
    deploy(&lab, 0, "shop", &format!("{apart}  client:{client}"));
    for client in ["shop.client.1", "shop.client.2"] {
        hears_all(lab.machine(1), client, "shop.web", 2);
    }
    let status = lab.machine(0).status().unwrap();
    let [link] = &status.links[..] else { panic!("{status:?}") };
    assert_eq!((link.path.as_str(), link.machine.as_str(), link.encrypted), ("vxlan", "m2", false));
    let shown = lab.machine(0).done(&["status"]).unwrap().stdout;
    assert!(shown.contains("m2: vxlan, not encrypted"), "{shown}");
}
