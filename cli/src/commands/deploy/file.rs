//! Finding and reading the app file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rialto_protocol::compose::{self, FILE_BYTES_MAX};
use rialto_protocol::model::AppSpec;

use crate::exit::{Exit, Failure};
use crate::human;

/// What Compose looks for, in its order.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// Reads the file and decides the app's name: the flag's, the file's own, or that of its folder.
pub fn read(file: Option<&Path>, app: Option<String>) -> Result<(String, AppSpec), Failure> {
    let path = match file {
        Some(path) => path.to_path_buf(),
        None => found()?,
    };
    let shown = if path == Path::new("-") { "stdin".into() } else { path.display().to_string() };
    let text = text(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{shown}: there is no such file")),
        io::ErrorKind::InvalidData => Failure::new(Exit::Refused, format!("{shown}: this is no text in UTF-8")),
        _ => Failure::new(Exit::Failed, format!("{shown}: {error}")),
    })?;
    let read = compose::parse(&text, &shown).map_err(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let count = human::count(problems.len() as u64, "mistake");
        Failure::new(Exit::Refused, format!("{shown} has {count}\n{}", told.join("\n")))
    })?;
    let name = match app.or(read.name) {
        Some(name) => name,
        None => of_folder(&path)?,
    };
    Ok((name, read.spec))
}

fn found() -> Result<PathBuf, Failure> {
    NAMES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        let failure = Failure::new(Exit::NotFound, "this folder has no app file");
        failure.hint(format!("name one by -f FILE; looked for {}", NAMES.join(", ")))
    })
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than is allowed shows that there are more.
    let most = FILE_BYTES_MAX as u64 + 1;
    match path == Path::new("-") {
        true => io::stdin().lock().take(most).read_to_string(&mut text)?,
        false => File::open(path)?.take(most).read_to_string(&mut text)?,
    };
    Ok(text)
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

    fn name(folder: &str, text: &str, app: Option<&str>) -> Result<String, Failure> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("f.yaml"), text).unwrap();
        read(Some(&folder.join("f.yaml")), app.map(Into::into)).map(|(name, _)| name)
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
    fn what_cannot_be_read_says_why() {
        assert_eq!(read(Some(Path::new("/nowhere/f.yaml")), None).unwrap_err().exit, Exit::NotFound);
        let bad = name("a", "services: {web: {image: a, imgae: b}}\n", None).unwrap_err();
        assert_eq!(bad.exit, Exit::Refused);
        assert!(bad.message.contains("f.yaml has 1 mistake\n") && bad.message.contains("did you mean 'image'?"));
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), [0xff, 0xfe]).unwrap();
        assert_eq!(read(Some(&root.path().join("f")), None).unwrap_err().exit, Exit::Refused);
    }
}
