//! Files that belong together: several, `.env`, `env_file`, `extends`, `include`, profiles.

use std::collections::BTreeMap;

use rialto_protocol::compose::{self, AppFile, Options, Problem, Source, Surroundings, Unread};
use rialto_protocol::model::volume::{Content, Named};

/// A folder, and variables around it.
#[derive(Default)]
struct Folder {
    files: BTreeMap<&'static str, &'static str>,
    variables: BTreeMap<&'static str, &'static str>,
}

impl Surroundings for Folder {
    fn read(&self, from: &str, path: &str) -> Result<Source, Unread> {
        let beside = from.rsplit_once('/').map_or("", |(folder, _)| folder);
        let name = if beside.is_empty() { path.to_string() } else { format!("{beside}/{path}") };
        let name = name.replace("/./", "/");
        let text = self.files.get(name.as_str()).ok_or(Unread::Missing)?;
        Ok(Source { name, text: text.to_string() })
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(ToString::to_string)
    }
}

fn load(files: &[&'static str], folder: &Folder, options: &Options) -> Result<AppFile, Vec<Problem>> {
    let sources = files.iter().map(|name| Source { name: name.to_string(), text: folder.files[name].to_string() });
    compose::load_files(sources.collect(), options, folder)
}

fn read(folder: &Folder) -> AppFile {
    load(&["c.yaml"], folder, &Options::default()).unwrap_or_else(|problems| panic!("{}", told(&problems)))
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn folder(files: &[(&'static str, &'static str)], variables: &[(&'static str, &'static str)]) -> Folder {
    Folder { files: files.iter().copied().collect(), variables: variables.iter().copied().collect() }
}

#[test]
fn variables_come_from_the_shell_then_from_dot_env() {
    let file = "services: {web: {image: 'web:${TAG:-1}', environment: {A: $A, B: '${B}', C: , D: }, deploy: {replicas: '${N:-2}'}}}";
    let folder = folder(&[("c.yaml", file), (".env", "TAG=2\nA=env\nD=env\n")], &[("A", "shell")]);
    let app = read(&folder);
    let web = &app.spec.services["web"];
    assert_eq!((web.image.as_str(), web.replicas), ("web:2", 2));
    let set: Vec<(&str, &str)> = web.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(set, [("A", "shell"), ("B", ""), ("D", "env")]);
    let warned: Vec<&str> = app.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert!(warned[0].contains("variable B is not set") && warned[1].contains("does not have it"), "{warned:?}");
    let strict = Options { strict: true, ..Options::default() };
    assert_eq!(load(&["c.yaml"], &folder, &strict).unwrap_err().len(), 2, "strict refuses what is warned about");
    let other = Options { env_files: vec!["none.env".into()], ..Options::default() };
    assert!(told(&load(&["c.yaml"], &folder, &other).unwrap_err()).contains("none.env:1:1: there is no such file"));
}

#[test]
fn a_variable_that_is_needed_and_missing_is_told_by_its_place() {
    let folder = folder(&[("c.yaml", "services:\n  web:\n    image: ${TAG:?name a tag}\n    user: $\n")], &[]);
    let problems = load(&["c.yaml"], &folder, &Options::default()).unwrap_err();
    assert!(
        told(&problems).starts_with("c.yaml:3:12: services.web.image: the variable TAG is needed: name a tag\n"),
        "{}",
        told(&problems)
    );
    assert_eq!((problems[1].line, problems[1].column), (4, 11));
}

#[test]
fn the_later_file_goes_over_the_earlier() {
    let folder = folder(
        &[
            (
                "c.yaml",
                "name: shop\nservices:\n  web: {image: a, command: [x], ports: ['80:80'], environment: {A: 1, B: 1}}\n",
            ),
            (
                "over.yaml",
                "services:\n  web: {image: b, ports: !override ['81:81'], command: !reset , environment: [B=2]}\n  db: {image: host}\n",
            ),
        ],
        &[],
    );
    let app = load(&["c.yaml", "over.yaml"], &folder, &Options::default()).unwrap();
    let web = &app.spec.services["web"];
    assert_eq!((web.image.as_str(), web.command.len(), web.ports.len()), ("b", 0, 1));
    assert_eq!((web.environment["A"].as_str(), web.environment["B"].as_str()), ("1", "2"));
    assert_eq!((app.name.as_deref(), app.spec.services.len()), (Some("shop"), 2));
}

#[test]
fn a_mistake_names_the_file_that_has_it() {
    let folder = folder(
        &[("c.yaml", "services:\n  web: {image: a}\n"), ("over.yaml", "services:\n  web:\n    restart: allways\n")],
        &[],
    );
    let problems = load(&["c.yaml", "over.yaml"], &folder, &Options::default()).unwrap_err();
    assert_eq!(problems[0].place(), "over.yaml:3:14");
}

#[test]
fn env_files_are_read_in_order_and_the_file_goes_over_them() {
    let file = "services: {web: {image: a, env_file: [a.env, {path: sub/b.env, format: raw}, {path: none, required: false}], environment: {C: own}}}";
    let folder =
        folder(&[("c.yaml", file), ("a.env", "A=1\nB=1\nC=1\nH=$HOME"), ("sub/b.env", "B='2'")], &[("HOME", "/root")]);
    let set = read(&folder).spec.services["web"].environment.clone();
    let set: Vec<(&str, &str)> = set.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(set, [("A", "1"), ("B", "'2'"), ("C", "own"), ("H", "/root")]);
    let missing = folder_of("services: {web: {image: a, env_file: none}}");
    assert!(
        told(&load(&["c.yaml"], &missing, &Options::default()).unwrap_err()).contains("none: there is no such file")
    );
}

fn folder_of(file: &'static str) -> Folder {
    folder(&[("c.yaml", file)], &[])
}

#[test]
fn services_extend_others_of_the_same_file_and_of_other_files() {
    let folder = folder(
        &[
            (
                "c.yaml",
                "services:\n  web: {extends: base, image: web, environment: {B: own}}\n  base: {extends: {file: sub/common.yaml, service: common}, image: host}\n",
            ),
            (
                "sub/common.yaml",
                "services:\n  common: {image: x, user: '5', env_file: c.env, environment: {A: 1, B: 1}}\n",
            ),
            ("sub/c.env", "FROM=beside\n"),
        ],
        &[],
    );
    let app = read(&folder);
    let web = &app.spec.services["web"];
    assert_eq!((web.image.as_str(), web.container.user.as_deref()), ("web", Some("5")));
    assert_eq!((web.environment["A"].as_str(), web.environment["B"].as_str()), ("1", "own"));
    assert_eq!(web.environment["FROM"], "beside", "paths are taken from beside the file that names them");
    assert_eq!(app.spec.services.len(), 2);
}

#[test]
fn what_cannot_be_extended_says_why() {
    for (file, why) in [
        ("services: {a: {extends: b, image: x}, b: {extends: a, image: x}}", "in a circle: a -> b -> a"),
        ("services: {a: {extends: wbe, image: x}, web: {image: x}}", "did you mean 'web'?"),
        ("services: {a: {extends: {file: none.yaml, service: b}, image: x}}", "none.yaml: there is no such file"),
        ("services: {a: {extends: {file: c.yaml}, image: x}}", "the service that is extended is missing"),
    ] {
        let told = told(&load(&["c.yaml"], &folder_of(file), &Options::default()).unwrap_err());
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn included_files_are_apps_of_their_own() {
    let folder = folder(
        &[
            (
                "c.yaml",
                "include:\n  - sub/db.yaml\n  - path: [more.yaml]\n    env_file: more.env\nservices:\n  web: {image: host}\n",
            ),
            ("sub/db.yaml", "name: theirs\nservices:\n  db: {image: 'db:${TAG:-1}'}\nnetworks: {default: }\n"),
            ("sub/.env", "TAG=7\n"),
            ("more.yaml", "services:\n  more: {image: 'more:${TAG:-1}'}\n"),
            ("more.env", "TAG=8\n"),
        ],
        &[],
    );
    let app = read(&folder);
    assert_eq!((app.spec.services["db"].image.as_str(), app.spec.services["more"].image.as_str()), ("db:7", "more:8"));
    assert_eq!((app.name, app.spec.services.len()), (None, 3));
    let both = self::folder(
        &[("c.yaml", "include: [d.yaml]\nservices: {web: {image: a}}\n"), ("d.yaml", "services: {web: {image: b}}\n")],
        &[],
    );
    assert!(
        told(&load(&["c.yaml"], &both, &Options::default()).unwrap_err()).contains("an included file has it already")
    );
    let circle = self::folder(&[("c.yaml", "include: [c.yaml]\nservices: {web: {image: a}}\n")], &[]);
    assert!(told(&load(&["c.yaml"], &circle, &Options::default()).unwrap_err()).contains("too deeply"));
}

#[test]
fn services_of_profiles_run_when_these_are_active() {
    let file =
        "services: {web: {image: a}, debug: {image: a, profiles: [debug, dev]}, test: {image: a, profiles: [test]}}";
    let names = |profiles: &[&str], variables: &[(&'static str, &'static str)]| {
        let options = Options { profiles: profiles.iter().map(ToString::to_string).collect(), ..Options::default() };
        let app = load(&["c.yaml"], &folder(&[("c.yaml", file)], variables), &options).unwrap();
        app.spec.services.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&[], &[]), "web");
    assert_eq!(names(&["dev"], &[]), "debug web");
    assert_eq!(names(&["*"], &[]), "debug test web");
    assert_eq!(names(&[], &[("COMPOSE_PROFILES", "debug,test")]), "debug test web");
    let none = folder_of("services: {a: {image: a, profiles: [x]}}");
    assert!(
        told(&load(&["c.yaml"], &none, &Options::default()).unwrap_err()).contains("hint: name one by --profile: x")
    );
}

#[test]
fn configs_and_secrets_are_found_from_beside_the_file_that_names_them() {
    let folder = Folder {
        files: BTreeMap::from([
            (
                "c.yaml",
                "include: [sub/i.yaml]\nservices: {web: {image: a, configs: [here, said], secrets: [word, shell]}}\nconfigs: {here: {file: a.conf}, said: {environment: SAID}}\nsecrets: {word: {file: ./word}, shell: {environment: SHELL_WORD}}\n",
            ),
            (
                "sub/i.yaml",
                "services: {db: {image: b, configs: [there], secrets: [inner, root]}}\nconfigs: {there: {file: b.conf}}\nsecrets: {inner: {file: inner}, root: {file: /etc/word}}\n",
            ),
            ("a.conf", "$A stays"),
            ("sub/b.conf", "b"),
            (".env", "SAID=yes\n"),
        ]),
        variables: BTreeMap::from([("SHELL_WORD", "secret")]),
    };
    let app = read(&folder);
    let said = |service: &str| -> Vec<Content> {
        let files = &app.spec.services[service].container.mounts.files;
        files.iter().map(|file| file.content.clone()).filter(|content| matches!(content, Content::Text(_))).collect()
    };
    assert_eq!(said("web"), [Content::Text("$A stays".into()), Content::Text("yes".into())]);
    assert_eq!(said("db"), [Content::Text("b".into())]);
    let own = |name: &str, content: Content| (Named::Own(name.into()), content);
    let wanted = BTreeMap::from([
        own("word", Content::File("./word".into())),
        own("shell", Content::Text("secret".into())),
        own("inner", Content::File("sub/inner".into())),
        own("root", Content::File("/etc/word".into())),
    ]);
    assert_eq!(app.secrets, wanted);
    let missing = Folder {
        files: BTreeMap::from([("c.yaml", folder.files["c.yaml"]), ("sub/i.yaml", folder.files["sub/i.yaml"])]),
        ..folder
    };
    let told = told(&load(&["c.yaml"], &missing, &Options::default()).unwrap_err());
    assert!(told.contains("configs.here.file: a.conf: there is no such file"), "{told}");
    assert!(told.contains("configs.said.environment: the variable SAID is not set"), "{told}");
}
