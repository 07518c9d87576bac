//! Folders and files of the machine in a container. The daemon checks where one really lies; the shim opens what lies
//! at that place now, and mounts what it has opened: whoever may write there and lays a link in between gets an error,
//! and never another folder.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::{Mode, mkdirat};
use rialto_protocol::model::container::unallowed;
use rialto_protocol::model::volume::Bind;

use super::{Mounted, Source, tree};
use crate::executor::userns::{Remap, Users, to_root};

/// A folder of the machine. Where a link leads is allowed, too, or it is not shown; what is the peer's own, its key
/// before all, never is. `hidden`: folders that no task may see; `remap`: who tasks are.
pub fn find(bind: &Bind, allows: &[String], hidden: &[PathBuf], remap: Option<Remap>) -> io::Result<Mounted> {
    let host = Path::new(&bind.host);
    let said = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", bind.host));
    let check = |real: &Path| {
        let ask = format!("bind={}{}", real.display(), if bind.read_only { ":ro" } else { "" });
        if unallowed(&[ask], allows).is_some() {
            let (host, real) = (&bind.host, real.display());
            let message = format!("{host} is {real} on this machine, and 'allow' in its rialtod.toml does not say");
            return Err(io::Error::other(format!("{message} bind={real}")));
        }
        match hidden.iter().find_map(|hidden| overlap(real, hidden)) {
            None => Ok(()),
            Some(why) => Err(io::Error::other(format!("{} is shown to no task: {why}", bind.host))),
        }
    };
    let real = match fs::canonicalize(host) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound && bind.create => {
            let above = host.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
            let (above, real) = above.ok_or(error)?;
            let rest = host.strip_prefix(above).map_err(io::Error::other)?;
            check(&real.join(rest))?;
            make(&real, rest).map_err(said)?;
            // It is made for the task, whose root is to write there.
            to_root(remap, &real.join(rest)).map_err(said)?;
            real.join(rest)
        }
        Err(error) => return Err(said(error)),
    };
    check(&real)?;
    let (at, read_only) = (bind.path.clone(), bind.read_only);
    Ok(Mounted { from: real, at, read_only, fill: false, source: Source::Machine })
}

/// What is wrong where one of two folders lies in the other, by whatever mounts.
fn overlap(real: &Path, hidden: &Path) -> Option<String> {
    let hidden = fs::canonicalize(hidden).ok()?;
    let id = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let lies_in =
        |inner: &Path, outer: &Path| id(outer).is_some_and(|outer| inner.ancestors().any(|one| id(one) == Some(outer)));
    let own = hidden.display();
    match (lies_in(real, &hidden), lies_in(&hidden, real)) {
        (true, _) => Some(format!("it lies in the peer's own folder {own}")),
        (_, true) => Some(format!("the peer's own folder {own} lies in it")),
        _ => None,
    }
}

/// Makes folders one in another, and follows no link on the way.
fn make(above: &Path, rest: &Path) -> io::Result<()> {
    let mut folder = open(AT_FDCWD, above, OFlag::O_DIRECTORY)?;
    for part in rest.components().filter(|part| matches!(part, Component::Normal(_))) {
        let part: &Path = part.as_ref();
        match mkdirat(&folder, part, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        folder = open(&folder, part, OFlag::O_DIRECTORY)?;
    }
    Ok(())
}

/// What lies at a path that has no links in it, now as when it was checked.
fn open(folder: impl AsFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(folder, path, how).map_err(|errno| match errno {
        Errno::ELOOP => io::Error::other(format!("a link has been laid into {} since it was checked", path.display())),
        errno => errno.into(),
    })
}

/// Shows what lies at `from` at the new place `to`, with everything that is mounted below it: without devices, and where
/// it is to be read alone, nothing of it can be written to. What the machine mounts there later stays outside. Folders of
/// the machine keep their owners, whoever the `users` are: nobody in a task becomes root there.
pub fn place(from: &Path, source: Source, read_only: bool, users: Option<&Users>, to: &Path) -> io::Result<()> {
    let found: File = match source {
        Source::Machine => open(AT_FDCWD, from, OFlag::empty())?.into(),
        // Only this peer can lay links there, and it may have done so above.
        Source::Volume | Source::Own => {
            let real = fs::canonicalize(from)?;
            open(AT_FDCWD, &real, OFlag::empty())?.into()
        }
    };
    match found.metadata()?.is_dir() {
        true => fs::create_dir(to)?,
        false => drop(File::create_new(to)?),
    }
    let attributes = libc::MOUNT_ATTR_NODEV | if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    tree::show(&found, to, attributes, libc::MS_PRIVATE, users.filter(|_| source != Source::Machine))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_is_shown_only_where_it_really_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("srv")).unwrap();
        symlink("/etc", at("srv/link")).unwrap();
        symlink("/etc/rialto-nowhere", at("srv/broken")).unwrap();
        let allows = [format!("bind={}/*", at("srv").display()), format!("bind={}:ro", at("ro").display())];
        let of = |name: &str, read_only, create| {
            let bind = Bind { host: at(name).display().to_string(), path: "/x".into(), read_only, create };
            find(&bind, &allows, &[], None).map(|mounted| mounted.from)
        };
        assert_eq!(of("srv/new/deep", false, true).unwrap(), at("srv/new/deep"));
        assert!(at("srv/new/deep").is_dir());
        assert!(of("srv/none", false, false).is_err(), "it is not there");
        for hidden in ["srv/link", "srv/link/rialto-new", "srv/broken", "srv/broken/new", "other"] {
            assert!(of(hidden, false, true).is_err(), "{hidden}");
        }
        assert!(!at("other").exists());
        assert!(!Path::new("/etc/rialto-new").exists() && !Path::new("/etc/rialto-nowhere").exists());
        fs::create_dir(at("ro")).unwrap();
        assert!(of("ro", true, false).is_ok() && of("ro", false, false).is_err());
    }

    #[test]
    fn nobody_is_shown_the_peers_own_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        for folder in ["lib/rialto/volumes", "lib/other", "elsewhere"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        symlink(at("lib/rialto"), at("elsewhere/link")).unwrap();
        let hidden = [at("elsewhere/link")];
        for (name, shown) in [
            ("lib", false),
            ("", false),
            ("lib/rialto", false),
            ("lib/rialto/volumes", false),
            ("lib/rialto/new", false),
            ("elsewhere/link", false),
            ("lib/other", true),
            ("elsewhere", true),
        ] {
            let bind = Bind { host: at(name).display().to_string(), path: "/x".into(), read_only: false, create: true };
            assert_eq!(find(&bind, &["bind=/*".into()], &hidden, None).is_ok(), shown, "{name:?}");
        }
        assert!(!at("lib/rialto/new").exists());
    }

    #[test]
    fn a_link_that_is_laid_after_the_check_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("in/deep")).unwrap();
        let checked = real.join("in/deep");
        assert!(open(AT_FDCWD, &checked, OFlag::O_DIRECTORY).is_ok());
        fs::rename(real.join("in"), real.join("was")).unwrap();
        fs::create_dir_all(real.join("secret/deep")).unwrap();
        symlink(real.join("secret"), real.join("in")).unwrap();
        let refused = place(&checked, Source::Machine, false, None, &real.join("to")).unwrap_err();
        assert!(refused.to_string().contains("link"), "{refused}");
        assert!(make(&real, Path::new("in/new")).is_err() && !real.join("secret/new").exists());
    }
}
