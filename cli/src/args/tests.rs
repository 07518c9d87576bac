use super::*;
use clap::CommandFactory;

fn read(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once("rialto").chain(line.split_whitespace()))
}

#[test]
fn the_grammar_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn everything_behind_the_image_is_the_command() {
    for (line, image, command) in [
        ("run host true", "host", vec!["true"]),
        ("run host -- true", "host", vec!["true"]),
        ("run host sh -c x -o json --memory", "host", vec!["sh", "-c", "x", "-o", "json", "--memory"]),
        ("run host -- --help", "host", vec!["--help"]),
        ("run host echo -- a", "host", vec!["echo", "--", "a"]),
        ("-o json run -d --retries 2 web:1", "web:1", vec![]),
    ] {
        let Verb::Run(run) = read(line).unwrap().verb else { panic!("{line}") };
        assert_eq!((run.image.as_str(), run.command), (image, command.iter().map(ToString::to_string).collect()));
    }
}

#[test]
fn flags_of_a_run_are_read() {
    let line = "run --name job --cpus 0.5 --memory 128m -e A=1 -e B=x=y -e C -p 8080:80 -p 53/udp --timeout 30s web";
    let Verb::Run(run) = read(line).unwrap().verb else { panic!() };
    assert_eq!((run.name.as_deref(), run.cpus, run.memory), (Some("job"), Some(500), Some(128 << 20)));
    let env: Vec<_> = run.env.iter().map(|v| (v.name.as_str(), v.value.as_deref())).collect();
    assert_eq!(env, [("A", Some("1")), ("B", Some("x=y")), ("C", None)]);
    assert_eq!(run.publish[0].host, Some(8080));
    assert_eq!(run.publish[1].protocol, "udp");
    assert_eq!(run.timeout, Some(Duration::from_secs(30)));
}

#[test]
fn global_flags_stand_anywhere_before_a_command() {
    let args = read("ps -o json --socket /x").unwrap();
    assert_eq!((args.output, args.door.socket), (Format::Json, Some("/x".into())));
}

#[test]
fn bad_flags_are_refused() {
    for line in [
        "",
        "nothing",
        "ps --bogus",
        "ps -o xml",
        "run",
        "run --cpus x host",
        "run --cpus 0 host",
        "run --memory 5x host",
        "run --memory 1k host",
        "run -e =1 host",
        "run -p 0 host",
        "run -p 1-5 host",
        "run --timeout 5 host",
        "run --timeout 5s -d host",
        "run --retries -1 host",
        "run ../x",
        "logs",
        "logs --tail x a",
        "stop",
        "restart",
        "wait",
        "wait a --until never",
        "plan --yes",
        "deploy --app Shop",
        "rm",
        "rm Shop",
        "scale",
        "machine drain",
        "machine rm --last x m2",
        "explain",
        "explain a b",
        "foresee",
        "foresee --lose",
        "foresee --add 2",
        "foresee --add 0 --like m1",
        "foresee --add 201 --like m1",
        "foresee --like m1",
        "foresee --lose m1 --seed x",
        "foresee --deploy",
        "rebalance m1",
        "rebalance --dry-run=maybe",
        "invite --uses 0",
        "invite --ttl forever",
        "image import",
        "completion cmd",
    ] {
        assert!(read(line).is_err_and(|error| error.use_stderr() || line.is_empty()), "{line}");
    }
}

#[test]
fn aliases_mean_the_same() {
    for line in ["up -f a -f b --yes", "deploy -f a -f b -y"] {
        let Verb::Deploy(deploy) = read(line).unwrap().verb else { panic!("{line}") };
        assert_eq!((deploy.files.file.len(), deploy.yes), (2, true));
    }
    assert!(matches!(read("diff --offline").unwrap().verb, Verb::Plan(Plan { offline: true, .. })));
    assert!(matches!(read("down").unwrap().verb, Verb::Down(Down { yes: false, .. })));
}

#[test]
fn a_bad_run_is_known_for_one() {
    let means = |line: &str| means_run(std::iter::once("rialto").chain(line.split_whitespace()).map(Into::into));
    assert!(means("run --bogus"));
    assert!(means("-o json --api=http://run:1 run"));
    assert!(means("--socket run run"));
    assert!(!means("ps run"));
    assert!(!means("--socket run"));
    assert!(!means(""));
}

#[test]
fn every_verb_shows_examples() {
    fn look(command: &clap::Command) {
        for verb in command.get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", verb.get_name());
            look(verb);
        }
    }
    look(&Args::command());
}

#[test]
fn locks_and_elections_are_read() {
    let Verb::Lock(lock) = read("lock --ttl 20s --wait 1m a/b -- sh -c x --wait 2s").unwrap().verb else { panic!() };
    assert_eq!((lock.lease.ttl, lock.wait, lock.name.as_str()), (20, Some(Duration::from_secs(60)), "a/b"));
    assert_eq!(lock.command, ["sh", "-c", "x", "--wait", "2s"]);
    let Verb::Elect(elect) = read("elect db --value m1").unwrap().verb else { panic!() };
    assert_eq!((elect.value.as_deref(), elect.command.len(), elect.lease.ttl), (Some("m1"), 0, 15));
    for line in [
        "lock a",
        "lock --no-wait --wait 1s a -- x",
        "lock --ttl 1s a -- x",
        "lock --ttl 3500ms a -- x",
        "elect db",
        "elect db --observe --value x",
        "elect db --observe -- x",
        "locks show",
        "locks break",
    ] {
        assert!(read(line).is_err(), "{line}");
    }
    assert!(read("elect db --observe").is_ok());
}
