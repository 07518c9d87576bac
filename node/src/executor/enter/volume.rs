//! A volume as an archive, whether or not a task runs that has it. What comes out are its files with their owners and
//! permissions, and the volume's own; what goes in replaces all that was there, once the whole of it has come.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::syncfs;
use rialto_protocol::api::ErrorCode;
use rialto_protocol::session::{Failed, Frame, Open};

use super::copy::{self, Owners};
use super::talk::Talk;
use super::{broken, failed};
use crate::executor::mounts;
use crate::executor::volumes::{DATA, RESTORING, turn};

/// Serves one copy. `volume`: the folder around its data; `user`: the task that has it, as far as the daemon knows.
pub fn serve(volume: &Path, user: &str, talk: &mut Talk) -> Result<i32, Failed> {
    let invalid = |message: String| failed(ErrorCode::Invalid, message);
    match talk.hear_first() {
        Ok(Frame::Open(Open::Read { path })) if path == "/" => {
            let data = File::open(volume.join(DATA)).map_err(broken("the volume"))?;
            copy::read_whole(&data, talk)?;
        }
        Ok(Frame::Open(Open::Write { path, .. })) if path == "/" => restore(volume, user, talk)?,
        Ok(_) => return Err(invalid("a volume is read or written as a whole".into())),
        Err(error) => return Err(invalid(error.to_string())),
    }
    Ok(0)
}

/// Unpacks an archive beside what tasks see, and puts it in its place in one step: whatever goes wrong before, the volume
/// is as it was.
fn restore(volume: &Path, user: &str, talk: &mut Talk) -> Result<(), Failed> {
    let wrong = broken("the volume");
    let busy = || failed(ErrorCode::Conflict, "the volume is being restored already: wait until that is done");
    let _turn = turn(volume).map_err(&wrong)?.ok_or_else(busy)?;
    let in_use = || {
        let user = if user.is_empty() { "a task" } else { user };
        failed(ErrorCode::Conflict, format!("the volume is in use by {user}: scale its service to 0 first"))
    };
    // Now, and not when everything has come in vain.
    mounts::alone(volume).map_err(&wrong)?.ok_or_else(in_use)?;
    let beside = volume.join(RESTORING);
    mounts::clear(&beside).map_err(&wrong)?;
    let restored = unpack(volume, &beside, talk).and_then(|()| {
        let _held = mounts::alone(volume).map_err(&wrong)?.ok_or_else(in_use)?;
        swap(volume, &beside).map_err(&wrong)
    });
    // Half of an archive, or what the volume held before.
    let _ = mounts::clear(&beside);
    restored
}

fn unpack(volume: &Path, beside: &Path, talk: &mut Talk) -> Result<(), Failed> {
    let wrong = broken("the volume");
    fs::create_dir(beside).map_err(&wrong)?;
    // An archive without a word on the volume itself leaves that as it is.
    let (now, new) = (File::open(volume.join(DATA)).map_err(&wrong)?, File::open(beside).map_err(&wrong)?);
    mounts::dress(&now, None, &new).map_err(&wrong)?;
    copy::write(&new, "/", Owners::Kept, talk)
}

fn swap(volume: &Path, beside: &Path) -> io::Result<()> {
    // A machine that loses its power finds the one or the other, and never names without what they name.
    syncfs(File::open(beside)?)?;
    renameat2(AT_FDCWD, beside, AT_FDCWD, &volume.join(DATA), RenameFlags::RENAME_EXCHANGE)?;
    File::open(volume)?.sync_all()
}
