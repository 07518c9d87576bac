//! Extended attributes that belong to a file wherever it goes: those of users, and the rights of a program.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// The most bytes of one file's that are copied.
const BYTES_MAX: usize = 512 << 10;
/// The rights of a program.
pub const CAPABILITY: &str = "security.capability";

/// Whether an attribute is copied.
pub fn travels(name: &str) -> bool {
    name.starts_with("user.") || name == CAPABILITY
}

/// Those of an open file or folder. A file system that has none is no error.
pub fn read(file: &impl AsFd) -> io::Result<Vec<(String, Vec<u8>)>> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the buffer is as long as is said; of length 0 the kernel only measures.
    let names = whole(|buffer| unsafe { libc::flistxattr(fd, buffer.as_mut_ptr().cast(), buffer.len()) })?;
    let mut read = Vec::new();
    let mut bytes = 0;
    for name in
        names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()).filter(|name| travels(name))
    {
        let as_c = CString::new(name)?;
        // SAFETY: the name is a C string, and the buffer as above.
        let value =
            whole(|buffer| unsafe { libc::fgetxattr(fd, as_c.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })?;
        bytes += name.len() + value.len();
        if bytes > BYTES_MAX {
            return Err(io::Error::other(format!("its extended attributes are more than {} KiB", BYTES_MAX >> 10)));
        }
        read.push((name.to_owned(), value));
    }
    Ok(read)
}

/// Gives them to an open file or folder, after its owner: a new owner takes a program's rights away.
pub fn write(file: &impl AsFd, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in attributes.iter().filter(|(name, _)| travels(name)) {
        match set(file.as_fd().as_raw_fd(), &CString::new(name.as_str())?, value) {
            // A file system without attributes holds the file without them.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => {
                return Err(io::Error::new(io::Error::from(errno).kind(), format!("{name}: {}", errno.desc())));
            }
        }
    }
    Ok(())
}

fn set(fd: i32, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: the name is a C string, and the value has the length that is given.
    Errno::result(unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }).map(drop)
}

/// Reads what the kernel first measures; what grows in between is measured again.
fn whole(read: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let length = match Errno::result(read(&mut [])) {
            Ok(length) => length as usize,
            Err(Errno::EOPNOTSUPP | Errno::ENODATA) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let mut buffer = vec![0; length];
        if length == 0 {
            return Ok(buffer);
        }
        match Errno::result(read(&mut buffer)) {
            Ok(count) => {
                buffer.truncate(count as usize);
                return Ok(buffer);
            }
            Err(Errno::ERANGE) => {}
            Err(Errno::ENODATA) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A program's rights as its file has them where root is the machine's: read through a mount that shows other owners
/// they say whose root they are for.
pub fn for_any_root(mut rights: Vec<u8>) -> Vec<u8> {
    // `struct vfs_ns_cap_data` of <linux/capability.h>: the version is the first word's highest byte, and of version 3
    // the last word is the root.
    const VERSION_2_BYTES: usize = 20;
    if rights.len() > VERSION_2_BYTES && rights[3] == 3 {
        rights.truncate(VERSION_2_BYTES);
        rights[3] = 2;
    }
    rights
}
