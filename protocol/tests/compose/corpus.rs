//! Every file of the corpus is read, or refused for the right reason.

use std::fs;

use rialto_protocol::compose::{self, Nothing, Options, Source, Surroundings, Unread};

/// Files beside the app file are there, whatever they hold.
struct Beside;

impl Surroundings for Beside {
    fn read(&self, _: &str, path: &str) -> Result<Source, Unread> {
        match path {
            ".env" => Err(Unread::Missing),
            path => Ok(Source { name: path.into(), text: "beside".into() }),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        Nothing.variable(name)
    }
}

/// What each file cannot be deployed for; those that are not named here can.
const REFUSED: [(&str, &[&str]); 17] = [
    ("angular_compose.yaml", &["services.web.build", "services.web.volumes"]),
    ("aspnet-mssql_compose.yaml", &["services.web.build"]),
    ("elasticsearch-logstash-kibana_compose.yaml", &["services.logstash.volumes"]),
    ("flask-redis_compose.yaml", &["services.web.build", "services.web.volumes"]),
    ("nginx-aspnet-mysql_compose.yaml", &["services.backend.build", "services.proxy.build"]),
    ("nginx-flask-mysql_compose.yaml", &["services.backend.build", "services.proxy.build"]),
    ("nginx-golang-postgres_compose.yaml", &["services.backend.build", "services.proxy.volumes.source"]),
    ("nginx-nodejs-redis_compose.yaml", &["services.web1.build", "services.web2.build", "services.nginx.build"]),
    ("pihole-cloudflared-DoH_compose.yaml", &["services.cloudflared.networks.dns-net.ipv4_address"]),
    ("prometheus-grafana_compose.yaml", &["services.grafana.volumes", "services.prometheus.volumes"]),
    (
        "react-express-mysql_compose.yaml",
        &["services.backend.build", "services.backend.volumes", "services.frontend.build", "services.frontend.volumes"],
    ),
    ("react-nginx_compose.yaml", &["services.frontend.build"]),
    ("sparkjava-mysql_compose.yaml", &["services.backend.build"]),
    ("spring-postgres_compose.yaml", &["services.backend.build"]),
    ("vuejs_compose.yaml", &["services.web.build", "services.web.volumes"]),
    (
        "wasmedge-mysql-nginx_compose.yml",
        &["services.backend.platform", "services.backend.runtime", "services.frontend.volumes"],
    ),
    ("wordpress-mysql_compose.yaml", &[]),
];

#[test]
fn other_peoples_files_are_read_or_refused_for_the_right_reason() {
    let Some(folder) = super::corpus() else { return super::skipped() };
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with("_compose.yaml") && !name.ends_with("_compose.yml") {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count() as u32;
        let source = Source { name: name.clone(), text };
        let read = compose::load_files(vec![source], &Options::default(), &Beside);
        let wanted = REFUSED.iter().find(|(file, _)| *file == name).map_or(&[][..], |(_, keys)| keys);
        let problems = read.err().unwrap_or_default();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        for key in wanted {
            assert!(keys.contains(key), "{name} is not refused for {key}:\n{}", told.join("\n"));
        }
        for key in keys {
            assert!(wanted.contains(&key), "{name} is refused for {key}:\n{}", told.join("\n"));
        }
        for problem in &problems {
            assert!((1..=lines).contains(&problem.line) && problem.column > 0, "{name}: {problem}");
        }
    }
    assert!(count >= 20, "{count} files were read");
}
