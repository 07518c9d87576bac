//! Real programs: nginx, Redis and PostgreSQL out of Debian's packages, in images that `examples/images/build.sh` makes.

use rialto_chaos::netns::{example, until};

use crate::{PATIENCE, images, live, three};

#[test]
fn nginx_redis_and_postgres_run_and_find_each_other() {
    let Some((_turn, lab)) = three() else { return };
    if !images::import(&lab, &["nginx", "redis", "postgres"]) {
        return;
    }
    // It returns when all are healthy, by the checks of their file.
    let file = example("images/compose.yaml");
    lab.machine(0).done(&["deploy", "--timeout", "2m", "-f", &file.to_string_lossy()]).unwrap();
    let rows = lab.machine(1).ps().unwrap();
    assert_eq!(live(&rows, "programs").len(), 4, "{rows:?}");

    for machine in lab.machines() {
        let fetch = || machine.fetch((machine.address(), 8_088).into(), "/").map_err(|error| error.to_string());
        let (page, _) = until("nginx", PATIENCE, fetch).unwrap();
        assert!(page.contains("Welcome to nginx"), "{page}");
    }
    // Each by its service's name, from a container of another service.
    let exec = |command: &[&str]| {
        let words = [&["exec", "programs.db.1", "--"], command].concat();
        lab.machine(2).done(&words).unwrap().stdout
    };
    let psql = ["psql", "postgresql://postgres:example@db/postgres", "-Atc"];
    exec(&[&psql[..], &["create table prices (bid int)"]].concat());
    exec(&[&psql[..], &["insert into prices select generate_series(1, 100)"]].concat());
    assert_eq!(exec(&[&psql[..], &["select sum(bid) from prices"]].concat()).trim(), "5050");
    let whoami = lab.machine(0).done(&["exec", "programs.db.1", "--", "id", "-un"]).unwrap();
    assert_eq!(whoami.stdout.trim(), "postgres", "the user of the image");
    let redis = |command: &[&str]| {
        let words = [&["exec", "programs.cache.1", "--", "redis-cli", "-h", "cache"], command].concat();
        lab.machine(1).done(&words).unwrap().stdout
    };
    assert_eq!(redis(&["set", "news", "what"]).trim(), "OK");
    assert_eq!(redis(&["get", "news"]).trim(), "what");
    // The signals of their images end them in time and with honour.
    lab.machine(0).done(&["stop", "programs"]).unwrap();
    let rows = lab.machine(0).ps().unwrap();
    let codes: Vec<_> = rows.iter().filter(|row| row.app == "programs").map(|row| row.exit_code).collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == Some(0)), "{rows:?}");
}
