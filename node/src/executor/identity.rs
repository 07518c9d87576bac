//! Whom a program of an image runs as, and where: names as the image's own `/etc/passwd` and
//! `/etc/group` read. Nothing in an image may lead a look outside of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

use super::userns::Remap;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// A user by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What `user[:group]` means in the image below `root`; an empty one is root.
pub fn user_of(root: &Path, text: &str) -> Result<User, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let passwd = read_in(root, "etc/passwd").unwrap_or_default();
    let groups = read_in(root, "etc/group").unwrap_or_default();
    resolve(user, group, &passwd, &groups)
}

/// The number of a group of the image below `root`, by its name or number.
pub fn group_of(root: &Path, text: &str) -> Result<u32, String> {
    let groups = read_in(root, "etc/group").unwrap_or_default();
    group(text, &groups).ok_or_else(|| format!("the image has no group {text:?}"))
}

fn group(wanted: &str, groups: &str) -> Option<u32> {
    let by_name = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == wanted);
    by_name.and_then(|fields| fields.get(2)?.parse().ok()).or_else(|| wanted.parse().ok())
}

fn resolve(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<User, String> {
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 4 && (fields[0] == user || (number.is_some() && fields[2].parse().ok() == number))
    });
    let (name, uid, gid) = match (&entry, number) {
        (Some(fields), _) => {
            let read =
                |text: &str| text.parse::<u32>().map_err(|_| format!("the image's passwd file is wrong about {user}"));
            (Some(fields[0]), read(fields[2])?, read(fields[3])?)
        }
        (None, Some(uid)) => (None, uid, 0),
        (None, None) => return Err(format!("the image has no user {user:?}")),
    };
    if let Some(group) = group {
        let gid = self::group(group, groups).ok_or_else(|| format!("the image has no group {group:?}"))?;
        return Ok(User { uid, gid, groups: Vec::new() });
    }
    let is_member = |members: &str| name.is_some_and(|name| members.split(',').any(|member| member == name));
    let others = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let others = others.filter(|fields| fields.len() >= 4 && is_member(fields[3]));
    Ok(User { uid, gid, groups: others.filter_map(|fields| fields[2].parse().ok()).collect() })
}

/// Makes the working folder, as `mkdir -p` of its root would inside of the image.
pub fn make_working_dir(root: &Path, remap: Option<Remap>, path: &str) -> io::Result<()> {
    let mut at: OwnedFd = File::open(root)?.into();
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.contains(&"..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the working folder's path goes upwards"));
    }
    let whole = File::open(root)?;
    for count in 1..=names.len() {
        // From the root each time: a link may lead anywhere inside.
        let path = names[..count].join("/");
        at = match openat2(&whole, path.as_str(), how(OFlag::O_DIRECTORY | OFlag::O_PATH)) {
            Ok(found) => found,
            Err(nix::errno::Errno::ENOENT) => {
                mkdirat(at.as_fd(), names[count - 1], Mode::from_bits_truncate(0o755))?;
                let made = openat2(&whole, path.as_str(), how(OFlag::O_DIRECTORY | OFlag::O_PATH))?;
                if let Some(Remap { first, .. }) = remap {
                    let root = Some(first);
                    fchownat(&made, "", root.map(Uid::from_raw), root.map(Gid::from_raw), AtFlags::AT_EMPTY_PATH)?;
                }
                made
            }
            Err(errno) => return Err(errno.into()),
        };
    }
    Ok(())
}

fn read_in(root: &Path, path: &str) -> io::Result<String> {
    let file = openat2(File::open(root)?, path, how(OFlag::O_RDONLY | OFlag::O_NONBLOCK))?;
    let mut text = String::new();
    File::from(file).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\nbroken\n";
        let groups = "root:x:0:\nweb:x:34:\nlogs:x:90:web,other\n";
        let resolve = |user, group| resolve(user, group, passwd, groups);
        assert_eq!(resolve("", None), Ok(User::default()));
        assert_eq!(resolve("web", None), Ok(User { uid: 33, gid: 34, groups: vec![90] }));
        assert_eq!(resolve("33", None), Ok(User { uid: 33, gid: 34, groups: vec![90] }));
        assert_eq!(resolve("1000", None), Ok(User { uid: 1000, gid: 0, groups: vec![] }));
        assert_eq!(resolve("web", Some("logs")), Ok(User { uid: 33, gid: 90, groups: vec![] }));
        assert_eq!(resolve("1000", Some("7")), Ok(User { uid: 1000, gid: 7, groups: vec![] }));
        assert!(resolve("nobody", None).is_err());
        assert!(resolve("web", Some("nobody")).is_err());
    }

    #[test]
    fn a_link_in_an_image_leads_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("etc/passwd")).unwrap();
        assert_eq!(user_of(root.path(), "5"), Ok(User { uid: 5, gid: 0, groups: vec![] }));
        std::os::unix::fs::symlink(outside.path(), root.path().join("app")).unwrap();
        assert!(make_working_dir(root.path(), None, "/app/x").is_err());
        assert!(outside.path().read_dir().unwrap().next().is_none());
        make_working_dir(root.path(), None, "/srv/deep/er").unwrap();
        assert!(root.path().join("srv/deep/er").is_dir());
    }
}
