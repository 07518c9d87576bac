mod places;

use proptest::prelude::*;

use super::*;
use crate::model::resources::{CPU_MILLIS, MEMORY_BYTES};
use crate::model::{NetworkMode, OnHeal, PortMode, PortSpec, Restart, ServiceSpec};

const WHOLE: &str = r#"
name: shop
services:
  web:
    image: web:1
    command: sh -c 'echo "$$PORT"; exec serve'
    environment:
      VERSION: 1.10
      MODE: "0755"
      DEBUG: yes
      SURE: true
      EMPTY: ""
    restart: no
    ports:
      - 80
      - "8080:8080"
      - 5353:53/udp
      - target: 443
        published: "8443"
        protocol: tcp
        name: https
    deploy:
      replicas: 3
      resources:
        limits: {cpus: '0.5', memory: 128m, pids: 64}
        reservations:
          cpus: 0.25
          memory: 64MiB
  job:
    image: host
    command: ["true"]
    environment: [A=1, B=x=y]
    restart: on-failure
"#;

fn read(text: &str) -> AppFile {
    parse(text, "compose.yaml").unwrap_or_else(|problems| panic!("{}", told(&problems)))
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

fn refused(text: &str) -> String {
    told(&parse(text, "compose.yaml").expect_err(text))
}

fn service(body: &str) -> ServiceSpec {
    let indented = body.replace('\n', "\n    ");
    let app = read(&format!("services:\n  web:\n    image: host\n    {indented}\n"));
    app.spec.services["web"].clone()
}

#[test]
fn every_honoured_key_is_read() {
    let app = read(WHOLE);
    assert_eq!(app.name.as_deref(), Some("shop"));
    assert!(!app.spec.single_run);
    let web = &app.spec.services["web"];
    assert_eq!(web.image, "web:1");
    assert_eq!(web.command, ["sh", "-c", "echo \"$PORT\"; exec serve"]);
    let set: Vec<(&str, &str)> = web.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let want = [("DEBUG", "yes"), ("EMPTY", ""), ("MODE", "0755"), ("SURE", "true"), ("VERSION", "1.10")];
    assert_eq!(set, want, "text is kept as it was written");
    assert_eq!(web.restart, Restart::No);
    assert_eq!(web.replicas, 3);
    assert_eq!(web.limits.get(CPU_MILLIS), 500);
    assert_eq!(web.limits.get(MEMORY_BYTES), 128 << 20);
    assert_eq!(web.limits.get("pids"), 64);
    assert_eq!(web.reservations.get(CPU_MILLIS), 250);
    assert_eq!(web.reservations.get(MEMORY_BYTES), 64 << 20);
    let port = |container, host, protocol: &str, name: Option<&str>| PortSpec {
        container,
        host,
        protocol: protocol.into(),
        name: name.map(str::to_string),
        ..PortSpec::default()
    };
    assert_eq!(
        web.ports,
        [
            port(80, None, "tcp", None),
            port(8080, Some(8080), "tcp", None),
            port(53, Some(5353), "udp", None),
            port(443, Some(8443), "tcp", Some("https")),
        ]
    );
    let job = &app.spec.services["job"];
    assert_eq!((job.replicas, job.restart), (1, Restart::OnFailure));
    assert_eq!(job.environment["B"], "x=y");
    assert_eq!(job.ports, [port(0, None, "tcp", None)], "a service without ports gets one");
}

#[test]
fn gpus_and_countable_resources_are_reserved() {
    let reserved = |body: &str| service(&format!("deploy: {{resources: {{reservations: {body}}}}}")).need();
    assert_eq!(reserved("{devices: [{capabilities: [gpu], count: 2}]}").get("gpu"), 2);
    let generic = "{generic_resources: [{discrete_resource_spec: {kind: gpu_milli, value: 250}}, \
                   {discrete_resource_spec: {kind: licence, value: '3'}}]}";
    assert_eq!((reserved(generic).get("gpu_milli"), reserved(generic).get("licence")), (250, 3));
}

#[test]
fn constraints_are_read() {
    let web = service("deploy: {placement: {constraints: [node.labels.disk == ssd, 'node.hostname!=m1']}}");
    let told: Vec<String> = web.constraints.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["node.labels.disk == ssd", "node.hostname != m1"]);
}

#[test]
fn places_and_orders_are_read() {
    let web = service(
        "deploy: {placement: {preferences: [{spread: node.labels.zone}, {spread: node.labels.rack}], max_replicas_per_node: 2}}\nx-rialto: {priority: -5, gang: true, apart_from: [db, bank/db], on_heal: keep_replacement, lost_after: 500ms, stop_when_isolated: 10m}",
    );
    assert_eq!(web.placement.spread, ["zone", "rack"]);
    assert_eq!(
        (web.placement.max_per_machine, &web.placement.apart_from[..]),
        (2, &["db".into(), "bank/db".into()][..])
    );
    assert_eq!((web.priority, web.gang, web.on_heal), (-5, true, OnHeal::KeepReplacement));
    assert_eq!((web.lost_after_ms, web.stop_when_isolated_ms), (Some(500), Some(600_000)));
}

#[test]
fn the_examples_are_read() {
    let examples = [
        include_str!("../../../../examples/web/compose.yaml"),
        include_str!("../../../../examples/hello/compose.yaml"),
    ];
    for example in examples {
        assert_eq!(read(example).spec.services.values().next().unwrap().replicas, 3);
    }
}

#[test]
fn restart_is_a_word_however_yaml_reads_it() {
    for (text, restart) in [
        ("no", Restart::No),
        ("\"no\"", Restart::No),
        ("false", Restart::No),
        ("always", Restart::Always),
        ("unless-stopped", Restart::UnlessStopped),
    ] {
        assert_eq!(service(&format!("restart: {text}")).restart, restart, "{text}");
    }
    assert_eq!(service("command: true").restart, Restart::Always, "the default");
}

#[test]
fn merge_keys_and_aliases_are_yaml() {
    let app = read(
        "services:\n  a: &a\n    image: host\n    environment: {X: '1'}\n  b:\n    <<: *a\n    command: sleep 1\n",
    );
    assert_eq!(app.spec.services["b"].environment["X"], "1");
    assert_eq!(app.spec.services["b"].command, ["sleep", "1"]);
}

#[test]
fn a_port_may_look_like_a_number_to_base_sixty() {
    assert_eq!(service("ports: [22:22]").ports[0].host, Some(22));
}

#[test]
fn mistakes_are_told_with_their_place_and_a_way_out() {
    let service = |body: &str| refused(&format!("services:\n  web:\n    image: host\n    {body}\n"));
    insta::assert_snapshot!("top", refused("version: '3'\nservice:\n  web: {}\nmodels: {}\nx-a: 1\nnaem: a\n"));
    insta::assert_snapshot!("keys", service("imgae: x\n    uts: x\n    mem_limit: 5m\n    ipc: x"));
    insta::assert_snapshot!(
        "names",
        refused("name: My_Shop\nservices:\n  Web_1:\n    image: host\n  -:\n    image: host\n")
    );
    insta::assert_snapshot!("no_image", refused("services:\n  web:\n    command: true\n"));
    insta::assert_snapshot!("no_services", refused("name: shop\n"));
    insta::assert_snapshot!("not_mappings", refused("services: [web]\n"));
    insta::assert_snapshot!("empty", refused("# nothing\n"));
    insta::assert_snapshot!("list", refused("- a\n"));
    insta::assert_snapshot!("yaml", refused("services:\n  web: [\n"));
    insta::assert_snapshot!("tabs", refused("services:\n\tweb: 1\n"));
    insta::assert_snapshot!("twice", refused("services:\n  web:\n    image: a\n    image: b\n"));
    insta::assert_snapshot!("anchor", refused("services:\n  web: *nowhere\n"));
    insta::assert_snapshot!("documents", refused("services: {}\n---\nservices: {}\n"));
    insta::assert_snapshot!(
        "ports",
        service(
            "ports: [8000-8010:80, '127.0.0.1:80:80', 0, 70000, 80/sctp, web, '81:81', '81:82', {published: 5}, {target: 5, mode: many}, [1]]"
        )
    );
    insta::assert_snapshot!("environment", service("environment: {A: , 'B C': 1, D: [1], E: $HOME, F: '${F:-x}'}"));
    insta::assert_snapshot!("environment_list", service("environment: [A, =1, B=1, B=2]"));
    insta::assert_snapshot!("command", service("command: echo 'a"));
    insta::assert_snapshot!("command_list", service("command: ['', [a]]"));
    insta::assert_snapshot!("restart", service("restart: allways"));
    insta::assert_snapshot!(
        "deploy",
        service(
            "deploy: {replicas: -1, mode: global, resources: {limits: {cpus: 0, memory: 5x, pids: 0}, reservations: {pids: 5}}}"
        )
    );
    insta::assert_snapshot!(
        "placement",
        service(
            "deploy: {placement: {constraints: [node.role == manager, node.labels.a, [x]], preferences: [{spread: zone}, {}], max_replicas_per_node: -1}}"
        )
    );
    insta::assert_snapshot!(
        "extension",
        service(
            "x-rialto: {priority: high, gang: 1, apart_from: [a/b/c], on_heal: both, lost_after: 5, stop_when_isolated: 40d, gangs: true}"
        )
    );
    insta::assert_snapshot!(
        "resources",
        service(
            "deploy: {resources: {reservations: {devices: [{capabilities: [tpu]}, {capabilities: [gpu]}, {capabilities: [gpu], count: all, driver: nvidia}], generic_resources: [{}, {discrete_resource_spec: {kind: 'gpu_milli:0', value: 1}}, {discrete_resource_spec: {kind: gpu_milli, value: 1001}}, {discrete_resource_spec: {kind: cpus, value: 1}}]}}}"
        )
    );
    insta::assert_snapshot!("replicas", service("deploy: {replicas: 100001}"));
    insta::assert_snapshot!(
        "reserved",
        service("deploy: {resources: {limits: {cpus: 1, memory: 1k}, reservations: {cpus: 2}}}")
    );
}

#[test]
fn bounds_hold() {
    let long = format!("services:\n  web:\n    image: {}\n", "a".repeat(FILE_BYTES_MAX));
    insta::assert_snapshot!("too_long", refused(&long));
    let many: String = (0..50).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(parse(&many, "f").unwrap_err().len(), PROBLEMS_MAX);
    let deep = "[".repeat(5_000);
    refused(&deep);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..10 {
        let item = format!("*a{}", n - 1);
        bomb += &format!("a{n}: &a{n} [{}]\n", [item.as_str(); 10].join(", "));
    }
    refused(&bomb);
    let text = "y".repeat(200 << 10);
    let repeated = format!("a: &a '{text}'\nb: [{}]\n", ["*a"; 900].join(", "));
    insta::assert_snapshot!("repeated", refused(&repeated));
}

#[test]
fn names_become_labels() {
    for (name, label) in
        [("My Shop!", "my-shop"), ("--a--", "a"), ("Größe", "gr-e"), ("日本", ""), (&"a".repeat(80), &"a".repeat(63))]
    {
        assert_eq!(label_like(name), label);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,400}") {
        let _ = parse(&text, "f");
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&String::from_utf8_lossy(&bytes), "f");
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_by_place(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..4, "[\\[\\]{}:,\\-&*!|>'\"%@`#$0-9a-z \n\t\\x00é]{0,4}"), 1..6),
    ) {
        let mut text = WHOLE.to_string();
        for (at, gone, put) in cuts {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if places.is_empty() { break; }
            let from = at.index(places.len());
            let to = (from + gone).min(places.len() - 1);
            text.replace_range(places[from]..places[to], &put);
        }
        match parse(&text, "f") {
            Ok(app) => {
                prop_assert!(!app.spec.services.is_empty());
                for (name, service) in &app.spec.services {
                    prop_assert!(crate::model::app::is_dns_label(name));
                    prop_assert!(service.replicas <= REPLICAS_MAX && !service.ports.is_empty() && !service.image.is_empty());
                }
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                let lines = text.lines().count() as u32 + 1;
                for problem in problems {
                    prop_assert!((1..=lines + 1).contains(&problem.line), "{} of {}: {}", problem.line, lines, problem);
                }
            }
        }
    }

    #[test]
    fn any_words_survive_quoting(words in proptest::collection::vec("[^\u{0}]{0,12}", 0..6)) {
        let line: Vec<String> = words.iter().map(|w| format!("'{}'", w.replace('\'', "'\\''"))).collect();
        prop_assert_eq!(super::words::split(&line.join(" ")).unwrap(), words);
    }
}

#[test]
fn networks_are_shared_by_their_names_in_the_cluster() {
    let text = "networks: {default: , near: {external: true, name: town}}\nservices:\n  web:\n    image: a\n    networks: [default, near]\n    ports: [{target: 80, published: 8080, mode: host}, '81:81']\n  api:\n    image: a\n    network_mode: host\n    x-rialto: {drain: 5s}\n";
    let app = read(text);
    let web = &app.spec.services["web"];
    assert_eq!((web.networks.as_slice(), web.network_mode), (&["town".to_string()][..], NetworkMode::Task));
    assert_eq!((web.ports[0].mode, web.ports[1].mode), (PortMode::Host, PortMode::Ingress));
    assert_eq!(web.ingress().collect::<Vec<_>>(), [(81, "tcp", 81)]);
    let api = &app.spec.services["api"];
    assert_eq!((api.network_mode, api.drain_ms), (NetworkMode::Host, Some(5_000)));
    for (bad, key) in [
        ("networks: {near: {driver: macvlan}}\nservices: {web: {image: a}}\n", "networks.near.driver"),
        (
            "networks: {near: }\nservices: {web: {image: a, networks: {near: {ipv4_address: 10.0.0.1}}}}\n",
            "services.web.networks.near.ipv4_address",
        ),
        ("services: {web: {image: a, networks: [near]}}\n", "services.web.networks"),
        ("services: {web: {image: a, network_mode: none}}\n", "services.web.network_mode"),
    ] {
        assert_eq!(parse(bad, "f").unwrap_err()[0].key, key, "{bad}");
    }
}

#[test]
fn containers_are_asked_for_as_compose_has_it() {
    use crate::model::container::{Container, DeviceFile, Seccomp, Tmpfs, Ulimit};
    use crate::model::health::{HealthCheck, HealthTest};
    let words = |list: &[&str]| list.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    type Change = Box<dyn Fn(&mut Container)>;
    let cases: Vec<(&str, Change)> = vec![
        ("user: \"1000:7\"", Box::new(|c| c.user = Some("1000:7".into()))),
        ("entrypoint: [a, b]", Box::new(move |c| c.entrypoint = Some(words(&["a", "b"])))),
        ("read_only: true\ninit: true\ntty: true", Box::new(|c| (c.read_only, c.init, c.tty) = (true, true, true))),
        ("cap_add: [CAP_NET_RAW, all]", Box::new(move |c| c.cap_add = words(&["NET_RAW", "ALL"]))),
        ("cap_drop: [net_raw]", Box::new(move |c| c.cap_drop = words(&["NET_RAW"]))),
        ("tmpfs: /run", Box::new(|c| c.tmpfs = vec![Tmpfs { path: "/run".into(), ..Tmpfs::default() }])),
        (
            "tmpfs: [\"/a:size=1m,mode=755\"]",
            Box::new(|c| {
                c.tmpfs = vec![Tmpfs { path: "/a".into(), bytes: Some(1 << 20), mode: Some(0o755) }];
            }),
        ),
        (
            "security_opt: [\"seccomp:p.json\", \"no-new-privileges:false\"]",
            Box::new(|c| {
                (c.seccomp, c.gains_privileges) = (Seccomp::File("p.json".into()), true);
            }),
        ),
        ("security_opt: [seccomp=unconfined]", Box::new(|c| c.seccomp = Seccomp::Unconfined)),
        (
            "ulimits: {nofile: {soft: 1, hard: 2}, nproc: -1}",
            Box::new(|c| {
                c.ulimits.insert("nofile".into(), Ulimit { soft: 1, hard: 2 });
                c.ulimits.insert("nproc".into(), Ulimit { soft: u64::MAX, hard: u64::MAX });
            }),
        ),
        ("sysctls: [kernel.msgmax=1]", Box::new(|c| drop(c.sysctls.insert("kernel.msgmax".into(), "1".into())))),
        ("shm_size: 1m", Box::new(|c| c.shm_bytes = Some(1 << 20))),
        (
            "devices: [/dev/fuse, \"/dev/a:/dev/b:r\"]",
            Box::new(|c| {
                let of = |host: &str, container: &str, access: &str| DeviceFile {
                    host: host.into(),
                    container: container.into(),
                    access: access.into(),
                };
                c.devices = vec![of("/dev/fuse", "/dev/fuse", "rwm"), of("/dev/a", "/dev/b", "r")];
            }),
        ),
        (
            "healthcheck: {test: [CMD, a], interval: 5s, retries: 2}",
            Box::new(move |c| {
                let test = Some(HealthTest::Command(words(&["a"])));
                c.health =
                    Some(HealthCheck { test, interval_ms: Some(5_000), retries: Some(2), ..HealthCheck::default() });
            }),
        ),
        (
            "healthcheck: {disable: true}",
            Box::new(|c| {
                c.health = Some(HealthCheck { test: Some(HealthTest::Nothing), ..HealthCheck::default() });
            }),
        ),
        (
            "x-rialto: {health: \"tcp://:80\", pre_stop: [x]}",
            Box::new(move |c| {
                c.health = Some(HealthCheck { test: Some(HealthTest::Tcp { port: 80 }), ..HealthCheck::default() });
                c.pre_stop = Some(words(&["x"]));
            }),
        ),
    ];
    for (body, change) in &cases {
        let mut wanted = Container::default();
        change(&mut wanted);
        assert_eq!(service(body).container, wanted, "{body}");
    }
    let both = service("stop_grace_period: 1m\npids_limit: 9");
    assert_eq!((both.stop_grace_ms, both.limits.get("pids")), (Some(60_000), 9));
    for body in [
        "cap_add: [NET_ROW]",
        "tmpfs: run",
        "tmpfs: /run:uid=5",
        "security_opt: [apparmor:x]",
        "ulimits: {nofile: {soft: 2, hard: 1}}",
        "ulimits: {files: 1}",
        "sysctls: {vm.swappiness: 1}",
        "devices: [fuse]",
        "privileged: perhaps",
        "healthcheck: {test: [curl, x]}",
        "healthcheck: {test: x, retries: 0}",
        "healthcheck: {test: x}\n    x-rialto: {health: \"tcp://:80\"}",
        "x-rialto: {health: \"ftp://:80\"}",
        "working_dir: ../x",
    ] {
        refused(&format!("services:\n  web:\n    image: host\n    {body}\n"));
    }
}

#[test]
fn volumes_are_named_shared_bound_or_memory() {
    use crate::model::volume::{Bind, Named, VolumeMount};
    let text = "services:
  db:
    image: db
    volumes:
      - data:/var/lib/db:ro
      - {type: volume, source: media, target: /media, volume: {nocopy: true}}
      - /srv/in:/in
      - {type: bind, source: /srv/out, target: /out, read_only: true, bind: {create_host_path: false}}
      - {type: tmpfs, target: /fast, tmpfs: {size: 1m, mode: 0700}}
      - /own
volumes:
  data:
  media: {external: true, name: films}
";
    let container = read(text).spec.services["db"].container.clone();
    let volume = |path: &str, name: Option<Named>, read_only, no_copy| VolumeMount {
        path: path.into(),
        name,
        read_only,
        no_copy,
    };
    let films = Named::Shared { name: "films".into(), external: true };
    assert_eq!(
        container.mounts.volumes,
        [
            volume("/var/lib/db", Some(Named::Own("data".into())), true, false),
            volume("/media", Some(films), false, true),
            volume("/own", None, false, false),
        ]
    );
    let bind =
        |host: &str, path: &str, read_only, create| Bind { host: host.into(), path: path.into(), read_only, create };
    assert_eq!(container.mounts.binds, [bind("/srv/in", "/in", false, true), bind("/srv/out", "/out", true, false)]);
    assert_eq!(container.asks(), ["bind=/srv/in", "bind=/srv/out:ro"]);
    assert_eq!((container.tmpfs[0].bytes, container.tmpfs[0].mode), (Some(1 << 20), Some(0o700)));
}

#[test]
fn what_is_no_volume_is_refused_with_the_reason() {
    for (mount, reason) in [
        ("data:/x", "none of the volumes at the top"),
        ("./here:/x", "a path beside this file"),
        ("/a:/x:rwx", "no option of a volume"),
        ("/a:b:c:d", "is no volume"),
        ("relative", "no absolute path"),
        ("{type: npipe, target: /x}", "no kind of mount"),
        ("{type: bind, target: /x}", "needs a source"),
        ("{source: data}", "needs a target"),
        ("/a:/", "over the whole container"),
    ] {
        let text = format!("services:\n  web:\n    image: host\n    volumes:\n      - {mount}\n");
        let refused = parse(&text, "f");
        let said = match refused {
            Err(problems) => told(&problems),
            Ok(app) => app.spec.services["web"].container.fault().expect(mount).1,
        };
        assert!(said.contains(reason), "{mount}: {said}");
    }
    let driver = refused("services:\n  a:\n    image: host\nvolumes:\n  x: {driver: nfs}\n");
    assert!(driver.contains("volumes are local to a machine"), "{driver}");
}

/// Every file says which it is, to whom.
struct Beside;

impl Surroundings for Beside {
    fn read(&self, from: &str, path: &str) -> Result<Source, Unread> {
        match path {
            ".env" => Err(Unread::Missing),
            path => Ok(Source { name: path.into(), text: format!("{path} of {from}") }),
        }
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

#[test]
fn configs_are_part_of_the_app_and_secrets_never() {
    use crate::model::volume::{Content, Named};
    let text = "services:
  web:
    image: host
    configs: [plain, {source: beside, target: etc/b, mode: 0440, uid: '5'}]
    secrets: [own, {source: shared, target: /x/y}]
configs:
  plain: {content: a=1}
  beside: {file: ./b.conf}
secrets:
  own: {environment: OWN}
  shared: {external: true}
";
    let source = Source { name: "f".into(), text: text.into() };
    let app =
        load_files(vec![source], &Options::default(), &Beside).unwrap_or_else(|problems| panic!("{}", told(&problems)));
    let files = &app.spec.services["web"].container.mounts.files;
    let shown: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.content.clone(), file.mode)).collect();
    let shared = Named::Shared { name: "shared".into(), external: true };
    assert_eq!(
        shown,
        [
            ("/plain", Content::Text("a=1".into()), 0o444),
            ("/etc/b", Content::Text("./b.conf of f".into()), 0o440),
            ("/run/secrets/own", Content::Sealed(Named::Own("own".into())), 0o444),
            ("/x/y", Content::Sealed(shared), 0o444),
        ]
    );
    assert_eq!(files[1].uid, 5);
    assert_eq!(app.secrets, [(Named::Own("own".into()), Content::Variable("OWN".into()))].into());
    for (top, reason) in [
        ("secrets: {a: {content: x}}", "unknown key"),
        ("secrets: {a: {}}", "has to come from somewhere"),
        ("configs: {a: {content: x, file: y}}", "comes from one place"),
        ("configs: {a: {external: true, file: y}}", "it is external"),
    ] {
        let said = refused(&format!("services:\n  web:\n    image: host\n{top}\n"));
        assert!(said.contains(reason), "{top}: {said}");
    }
}

#[test]
fn what_is_passed_over_is_warned_about_and_strict_refuses_it() {
    for (body, key, said) in [
        ("build: .", "build", "the image is taken"),
        ("container_name: x", "container_name", "tasks are named APP.SERVICE.NUMBER"),
        ("logging: {driver: x}", "logging", "rialto logs"),
        (
            "deploy: {restart_policy: {condition: any, max_attempts: 3}}",
            "deploy.restart_policy.max_attempts",
            "a bound is for on-failure",
        ),
        ("environment: [A]", "environment.A", "the task does not have it"),
    ] {
        let text = format!("services:\n  web:\n    image: host\n    {body}\n");
        let app = read(&text);
        assert_eq!(app.warnings.len(), 1, "{body}");
        assert_eq!(app.warnings[0].key, format!("services.web.{key}"));
        assert!(app.warnings[0].message.contains(said), "{}", app.warnings[0]);
        let options = Options { strict: true, ..Options::default() };
        let source = Source { name: "f".into(), text };
        assert_eq!(load_files(vec![source], &options, &Nothing).unwrap_err().len(), 1, "{body}");
    }
}

#[test]
fn what_a_machine_has_to_allow_is_no_mistake() {
    let app = read(
        "services: {web: {image: a, privileged: true}, db: {image: a, devices: [/dev/fuse], cap_add: [NET_ADMIN]}}",
    );
    let told: Vec<&str> = app.conditions.iter().map(|one| one.message.rsplit(' ').next().unwrap()).collect();
    assert_eq!(told, ["privileged", "cap=NET_ADMIN", "device=/dev/fuse"]);
    assert!(app.warnings.is_empty());
}

#[test]
fn what_is_built_is_refused_with_a_way_out() {
    let told = refused("services:\n  web:\n    build: {context: ., target: x}\n");
    assert!(
        told.starts_with(
            "compose.yaml:3:5: services.web.build: Rialto builds no images\n  hint: build the image elsewhere"
        ),
        "{told}"
    );
    assert!(refused("services: {web: {image: a, build: {contxt: .}}}").contains("did you mean 'context'?"));
}

#[test]
fn short_keys_say_the_same_as_deploy() {
    let web = service(
        "cpus: 0.5\nmem_limit: 64m\nmem_reservation: 32m\nscale: 3\ngpus: [{count: 2}]\npre_stop: [{command: [a, b]}]",
    );
    assert_eq!((web.limits.get(CPU_MILLIS), web.limits.get(MEMORY_BYTES)), (500, 64 << 20));
    assert_eq!((web.reservations.get(MEMORY_BYTES), web.reservations.get("gpu"), web.replicas), (32 << 20, 2, 3));
    assert_eq!(web.container.pre_stop.unwrap(), ["a", "b"]);
    assert!(
        refused("services: {web: {image: a, cpus: 1, deploy: {resources: {limits: {cpus: 2}}}}}")
            .contains("says otherwise")
    );
    assert!(
        refused("services: {web: {image: a, pre_stop: [{command: a, user: x}]}}")
            .contains("it runs as the service does")
    );
    let policy = |word: &str| service(&format!("deploy: {{restart_policy: {{condition: {word}}}}}")).restart;
    assert_eq!(
        [policy("none"), policy("on-failure"), policy("any")],
        [Restart::No, Restart::OnFailure, Restart::Always]
    );
}

#[test]
fn ranges_of_ports_are_one_port_each() {
    let ports = service("ports: ['8000-8002:80-82/udp', '0.0.0.0:90:90']").ports;
    let found: Vec<_> = ports.iter().map(|port| (port.host, port.container, port.protocol.as_str())).collect();
    let wanted = [(Some(8000), 80, "udp"), (Some(8001), 81, "udp"), (Some(8002), 82, "udp"), (Some(90), 90, "tcp")];
    assert_eq!(found, wanted);
    for bad in ["8000-8001:80-82", "82-80", "1-65535", "0-5", "1-2-3"] {
        refused(&format!("services: {{web: {{image: a, ports: ['{bad}']}}}}"));
    }
}

#[test]
fn extensions_may_be_anywhere_but_ours() {
    let app = read("x-a: {b: [1]}\nservices: {web: {x-b: 1, image: a, deploy: {x-c: }}}\n");
    assert!(app.warnings.is_empty());
    assert!(refused("x-rialto: {}\nservices: {web: {image: a}}").contains("x-rialto is a service's"));
    assert!(refused("services: {web: {image: a, x-rialtoo: {}}}").contains("did you mean 'x-rialto'?"));
}
