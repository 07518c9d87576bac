//! Finding and reading the app files, and what they name beside them.

use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rialto_protocol::compose::{self, AppFile, FILE_BYTES_MAX, Options, Problem, Source, Surroundings, ToSet, Unread};
use rialto_protocol::model::AppSpec;
use rialto_protocol::model::container::{SECCOMP_BYTES_MAX, Seccomp};
use serde_json::json;

use crate::args::AppFiles;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::say;

/// What Compose looks for, in its order, and what goes over each.
const NAMES: [(&str, [&str; 2]); 4] = [
    ("compose.yaml", ["compose.override.yaml", "compose.override.yml"]),
    ("compose.yml", ["compose.override.yml", "compose.override.yaml"]),
    ("docker-compose.yaml", ["docker-compose.override.yaml", "docker-compose.override.yml"]),
    ("docker-compose.yml", ["docker-compose.override.yml", "docker-compose.override.yaml"]),
];
/// What stdin is called in messages.
const STDIN: &str = "stdin";

/// An app as its files say.
#[derive(Debug)]
pub struct Wanted {
    pub app: String,
    pub spec: AppSpec,
    /// What is to be set before it is deployed.
    pub secrets: ToSet,
    /// What is passed over, and what a machine has to allow.
    pub warnings: Vec<Problem>,
    pub conditions: Vec<Problem>,
}

/// Reads one file that stands for itself.
pub fn read_one(path: &Path) -> Result<(String, AppSpec), Failure> {
    let read = read(&AppFiles { file: vec![path.into()], ..AppFiles::default() })?;
    Ok((read.app, read.spec))
}

/// Reads the files and decides the app's name: the flag's, the files' own, or that of the first one's folder.
pub fn read(files: &AppFiles) -> Result<Wanted, Failure> {
    let paths = if files.file.is_empty() { found()? } else { files.file.clone() };
    let mut sources = Vec::new();
    for path in &paths {
        sources.push(Source { name: shown(path), text: text(path).map_err(|error| unreadable(path, &error))? });
    }
    let first = paths[0].clone();
    let options = Options {
        profiles: files.profile.clone(),
        env_files: files.env_file.iter().map(|path| path.display().to_string()).collect(),
        strict: files.strict,
    };
    let read = compose::load_files(sources, &options, &Here).map_err(|problems| refused(&shown(&first), &problems))?;
    let AppFile { name, mut spec, secrets, warnings, conditions } = read;
    send_along(&mut spec, &first)?;
    let app = match files.app.clone().or(name) {
        Some(name) => name,
        None => of_folder(&first)?,
    };
    Ok(Wanted { app, spec, secrets, warnings, conditions })
}

/// Says what is passed over.
pub fn warn(warnings: &[Problem]) {
    warnings.iter().for_each(|warning| say(format!("warning: {warning}")));
}

fn refused(first: &str, problems: &[Problem]) -> Failure {
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let count = human::count(problems.len() as u64, "mistake");
    let failure = Failure::new(Exit::Refused, format!("{first} has {count}\n{}", told.join("\n")));
    failure.with(json!({ "mistakes": as_json(problems) }))
}

/// Mistakes and warnings as programs read them.
pub fn as_json(problems: &[Problem]) -> Vec<serde_json::Value> {
    let one = |problem: &Problem| {
        json!({
            "file": problem.file, "line": problem.line, "column": problem.column, "key": problem.key,
            "message": problem.message, "hint": problem.hint,
        })
    };
    problems.iter().map(one).collect()
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let shown = shown(path);
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{shown}: there is no such file")),
        io::ErrorKind::InvalidData => Failure::new(Exit::Refused, format!("{shown}:{error}")),
        _ => Failure::new(Exit::Failed, format!("{shown}: {error}")),
    }
}

fn shown(path: &Path) -> String {
    if path == Path::new("-") { STDIN.into() } else { path.display().to_string() }
}

/// The folders and the environment of whoever calls.
struct Here;

impl Surroundings for Here {
    fn read(&self, from: &str, path: &str) -> Result<Source, Unread> {
        let folder = Path::new(from).parent().unwrap_or(Path::new(""));
        let path = folder.join(path);
        match text(&path) {
            Ok(text) => Ok(Source { name: path.display().to_string(), text }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unread::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Unread::Failed(error.to_string())),
            Err(error) => Err(Unread::Failed(error.to_string())),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        env::var(name).ok()
    }
}

/// Reads the profiles that the app file names: from beside it, as Compose does.
fn send_along(spec: &mut AppSpec, file: &Path) -> Result<(), Failure> {
    let folder = file.parent().filter(|_| file != Path::new("-")).unwrap_or(Path::new(""));
    for (name, service) in &mut spec.services {
        let Seccomp::File(profile) = &service.container.seccomp else { continue };
        let path = folder.join(profile);
        let wrong = |why: String| {
            Failure::new(Exit::Refused, format!("services.{name}.security_opt: {}: {why}", path.display()))
        };
        let mut text = String::new();
        let most = SECCOMP_BYTES_MAX as u64 * 4;
        let read = File::open(&path).and_then(|file| file.take(most).read_to_string(&mut text));
        read.map_err(|error| wrong(error.to_string()))?;
        // Without its indentation Docker's own profile is a quarter as long.
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        service.container.seccomp = Seccomp::profile(json.to_string()).map_err(wrong)?;
    }
    Ok(())
}

/// The folder's file, and the one that goes over it.
fn found() -> Result<Vec<PathBuf>, Failure> {
    let is_there = |name: &&str| Path::new(name).is_file();
    let Some((name, over)) = NAMES.iter().find(|(name, _)| is_there(name)) else {
        let failure = Failure::new(Exit::NotFound, "this folder has no app file");
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        return Err(failure.hint(format!("name one by -f FILE; looked for {}", names.join(", "))));
    };
    Ok([name].into_iter().chain(over.iter().find(|name| is_there(name))).map(PathBuf::from).collect())
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are more.
    let most = FILE_BYTES_MAX as u64 + 1;
    match path == Path::new("-") {
        true => io::stdin().lock().take(most).read_to_end(&mut bytes)?,
        false => File::open(path)?.take(most).read_to_end(&mut bytes)?,
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        // It is refused for its length, wherever it was cut.
        Err(error) if error.as_bytes().len() > FILE_BYTES_MAX => {
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
        Err(error) => {
            let sound = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            let (line, column) =
                (sound.matches('\n').count() + 1, sound.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1);
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("{line}:{column}: this is no text in UTF-8")))
        }
    }
}

fn of_folder(path: &Path) -> Result<String, Failure> {
    let folder = match path.parent() {
        Some(parent) if path != Path::new("-") && !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let whole = folder.canonicalize()?;
    let name = compose::label_like(&whole.file_name().unwrap_or_default().to_string_lossy());
    crate::args::app(&name).map_err(|_| {
        let message = format!("the folder {} gives the app no name", whole.display());
        Failure::new(Exit::Refused, message).hint("write name: into the file, or --app NAME")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "services:\n  web:\n    image: host\n";

    fn files(path: &Path) -> AppFiles {
        AppFiles { file: vec![path.into()], ..AppFiles::default() }
    }

    fn name(folder: &str, text: &str, app: Option<&str>) -> Result<String, Failure> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("f.yaml"), text).unwrap();
        let files = AppFiles { app: app.map(Into::into), ..files(&folder.join("f.yaml")) };
        read(&files).map(|read| read.app)
    }

    #[test]
    fn the_name_is_the_flags_then_the_files_then_the_folders() {
        let named = format!("name: own\n{FILE}");
        assert_eq!(name("My Shop", &named, Some("flag")).unwrap(), "flag");
        assert_eq!(name("My Shop", &named, None).unwrap(), "own");
        assert_eq!(name("My Shop", FILE, None).unwrap(), "my-shop");
        assert_eq!(name("日本", FILE, None).unwrap_err().exit, Exit::Refused);
        assert_eq!(name("machine", FILE, None).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn files_beside_the_file_are_found() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        put(
            "c.yaml",
            "services:\n  web: {image: 'web:${TAG}', env_file: [a.env], extends: {file: base.yaml, service: base}}\n",
        );
        put("over.yaml", "services:\n  web: {user: '5'}\n");
        put("base.yaml", "services:\n  base: {read_only: true}\n");
        put("a.env", "A=1\n");
        put(".env", "TAG=7\n");
        let both =
            AppFiles { file: vec![root.path().join("c.yaml"), root.path().join("over.yaml")], ..AppFiles::default() };
        let web = read(&both).unwrap().spec.services["web"].clone();
        assert_eq!((web.image.as_str(), web.environment["A"].as_str()), ("web:7", "1"));
        assert_eq!((web.container.read_only, web.container.user.as_deref()), (true, Some("5")));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert_eq!(read(&files(Path::new("/nowhere/f.yaml"))).unwrap_err().exit, Exit::NotFound);
        let bad = name("a", "services: {web: {image: a, imgae: b}}\n", None).unwrap_err();
        assert_eq!(bad.exit, Exit::Refused);
        assert!(bad.message.contains("f.yaml has 1 mistake\n") && bad.message.contains("did you mean 'image'?"));
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), [0xff, 0xfe]).unwrap();
        assert_eq!(read(&files(&root.path().join("f"))).unwrap_err().exit, Exit::Refused);
    }
}
