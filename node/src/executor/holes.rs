//! Copying files that have holes: what is nothing but zeros is not written, so that a copy takes no more room than what
//! it was made of.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// A hole is at least as long as this, and the block of most file systems divides it.
const PIECE_BYTES: usize = 64 << 10;

/// Copies all that is to be read into an empty file.
pub fn copy(mut from: impl Read, to: &mut File) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0;
    loop {
        let count = fill(&mut from, &mut piece)?;
        length += count as u64;
        // Only whole pieces: small files have no holes worth the name.
        match count == PIECE_BYTES && piece.iter().all(|byte| *byte == 0) {
            true => drop(to.seek(SeekFrom::Current(count as i64))?),
            false => to.write_all(&piece[..count])?,
        }
        if count < PIECE_BYTES {
            // What ends in a hole is as long all the same.
            return to.set_len(length);
        }
    }
}

/// Reads until the piece is full, or there is no more.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < piece.len() {
        match from.read(&mut piece[at..]) {
            Ok(0) => break,
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_is_the_same_and_takes_no_more_room() {
        let mut content = vec![0; 5 << 20];
        content[(2 << 20) + 5] = 7;
        for tail in [&b""[..], b"end"] {
            let whole = [&content[..], tail].concat();
            let mut file = tempfile::tempfile().unwrap();
            copy(&whole[..], &mut file).unwrap();
            let found = file.metadata().unwrap();
            assert!(found.blocks() * 512 <= 4 * PIECE_BYTES as u64, "{} blocks", found.blocks());
            let mut copied = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut copied).unwrap();
            assert!(copied == whole);
        }
    }
}
