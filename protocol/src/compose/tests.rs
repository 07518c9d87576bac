use proptest::prelude::*;

use super::*;
use crate::model::resources::{CPU_MILLIS, MEMORY_BYTES};
use crate::model::{OnHeal, PortSpec, Restart, ServiceSpec};

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
    let examples =
        [include_str!("../../../examples/web/compose.yaml"), include_str!("../../../examples/hello/compose.yaml")];
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
    insta::assert_snapshot!("top", refused("version: '3'\nservice:\n  web: {}\nvolumes: {}\nx-a: 1\nnaem: a\n"));
    insta::assert_snapshot!("keys", service("imgae: x\n    volumes: []\n    mem_limit: 5m\n    entrypoint: x"));
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
            "ports: [8000-8010:80, '127.0.0.1:80:80', 0, 70000, 80/sctp, web, '81:81', '81:82', {published: 5}, {target: 5, mode: host}, [1]]"
        )
    );
    insta::assert_snapshot!("environment", service("environment: {A: , 'B C': 1, D: [1], E: $HOME, F: '${F:-x}'}"));
    insta::assert_snapshot!("environment_list", service("environment: [A, =1, B=1, B=2]"));
    insta::assert_snapshot!("command", service("command: echo 'a"));
    insta::assert_snapshot!("command_list", service("command: ['', [a]]"));
    insta::assert_snapshot!("restart", service("restart: allways"));
    insta::assert_snapshot!("restart_bound", service("restart: on-failure:3"));
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
