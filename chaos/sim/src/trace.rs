//! What happened, as one number, and for people as lines.

/// A running hash of everything that happens in a world; two runs of one seed give the same.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    /// Whether lines are printed.
    pub print: bool,
}

impl Trace {
    /// Mixes a number in (the step of splitmix64).
    pub fn mix(&mut self, number: u64) {
        let mut x = self.hash.rotate_left(5) ^ number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.hash = x ^ (x >> 27);
    }

    /// Mixes bytes in.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(eight));
        }
    }

    /// Prints a line, where lines are wanted.
    pub fn line(&self, now_us: u64, text: impl FnOnce() -> String) {
        if self.print {
            println!("{:>10.3}  {}", now_us as f64 / 1e6, text());
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}
