//! The machine's `/etc` as tasks of the image `host` may see it: who is who, how names are found,
//! whom to trust. No shadow, no keys, and only what everybody on the machine may read.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Files and folders, by their names in `/etc`.
const SHOWN: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "environment",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "lsb-release",
    "mime.types",
    "networks",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/ca-trust",
    "pki/tls/certs",
    "profile",
    "protocols",
    "resolv.conf",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];
/// These are there even where the machine has none.
const MOUNTED_OVER: [&str; 2] = ["hosts", "resolv.conf"];
const FILE_BYTES_MAX: u64 = 8 << 20;
const ENTRIES_MAX: usize = 8192;
const DEPTH_MAX: usize = 8;

/// Brings the copy in `to` up to date. What has not changed costs a look at its date.
pub fn refresh(to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    let mut left = ENTRIES_MAX;
    for name in SHOWN {
        let target = to.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let from = Path::new("/etc").join(name);
        // A file that is a link, as resolv.conf may be one into /run, is shown as what it leads to.
        match fs::metadata(&from) {
            Ok(found) => copy(&from, &found, &target, DEPTH_MAX, &mut left)?,
            // A task with a network of its own has others in their places.
            Err(_) if MOUNTED_OVER.contains(name) => drop(fs::File::create(&target)?),
            Err(_) => remove(&target),
        }
    }
    Ok(())
}

fn copy(from: &Path, found: &Metadata, to: &Path, depth: usize, left: &mut usize) -> io::Result<()> {
    if *left == 0 || depth == 0 {
        return Ok(());
    }
    *left -= 1;
    if found.is_symlink() {
        let target = fs::read_link(from)?;
        if fs::read_link(to).is_ok_and(|have| have == target) {
            return Ok(());
        }
        remove(to);
        return symlink(target, to);
    }
    // Only what anybody may read: a key is never that.
    let open_to_all = if found.is_dir() { 0o005 } else { 0o004 };
    if found.mode() & open_to_all != open_to_all {
        remove(to);
        return Ok(());
    }
    if found.is_dir() {
        return copy_folder(from, found, to, depth, left);
    }
    if !found.is_file() || found.len() > FILE_BYTES_MAX || is_same(found, to) {
        return Ok(());
    }
    // Another start may be at the same file: each writes its own and the last rename wins.
    let temporary = to.with_extension(format!("new-{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::copy(from, &temporary)?;
    fs::File::open(&temporary)?.set_modified(found.modified()?)?;
    fs::rename(&temporary, to)
}

fn copy_folder(from: &Path, found: &Metadata, to: &Path, depth: usize, left: &mut usize) -> io::Result<()> {
    // A folder's date changes with its entries; files that are rewritten in place are rare in
    // folders of links and certificates, and are seen at the next start of the daemon.
    if is_same(found, to) {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        copy(&entry.path(), &entry.metadata()?, &to.join(entry.file_name()), depth - 1, left)?;
    }
    for entry in fs::read_dir(to)?.flatten() {
        if fs::symlink_metadata(from.join(entry.file_name())).is_err() {
            remove(&entry.path());
        }
    }
    fs::File::open(to)?.set_modified(found.modified()?)
}

fn is_same(found: &Metadata, to: &Path) -> bool {
    fs::symlink_metadata(to).is_ok_and(|have| {
        have.is_dir() == found.is_dir()
            && !have.is_symlink()
            && (found.is_dir() || have.len() == found.len())
            && (have.mtime(), have.mtime_nsec()) == (found.mtime(), found.mtime_nsec())
    })
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        let _ = fs::remove_dir_all(path);
    } else {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_who_is_who_and_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            refresh(folder.path()).unwrap();
            assert_eq!(fs::read("/etc/passwd").unwrap(), fs::read(folder.path().join("passwd")).unwrap());
            for secret in ["shadow", "gshadow", "ssh", "ssl/private"] {
                assert!(!folder.path().join(secret).exists(), "{secret}");
            }
        }
    }
}
