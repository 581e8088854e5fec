//! Contents that look random, differ by their seed, and can be made again.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// `len` bytes that depend on `seed` alone.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes a file of `len` such bytes into `folder`.
pub fn file(folder: &Path, name: &str, seed: u64, len: u64) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder can be made");
    let mut file = File::create(&path).expect("the file can be made");
    let mut source = blake3::Hasher::new();
    let mut source = source.update(&seed.to_le_bytes()).finalize_xof();
    let mut buffer = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        source.fill(&mut buffer[..want]);
        file.write_all(&buffer[..want]).expect("there is disk space");
        left -= want as u64;
    }
    path
}

/// BLAKE3 of a file, as `b3sum` prints it.
pub fn digest(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    io::copy(&mut BufReader::with_capacity(1 << 20, file), &mut hasher).expect("the file can be read");
    hasher.finalize().to_string()
}

/// Whether two files have the same content.
pub fn same(a: &Path, b: &Path) -> bool {
    let open = |path: &Path| File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut a, mut b) = (open(a), open(b));
    let (mut block_a, mut block_b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let (len_a, len_b) = (fill(&mut a, &mut block_a), fill(&mut b, &mut block_b));
        if len_a != len_b || block_a[..len_a] != block_b[..len_b] {
            return false;
        }
        if len_a == 0 {
            return true;
        }
    }
}

fn fill(file: &mut File, block: &mut [u8]) -> usize {
    let mut len = 0;
    while len < block.len() {
        match file.read(&mut block[len..]).expect("the file can be read") {
            0 => break,
            got => len += got,
        }
    }
    len
}

/// Small random numbers that depend on a seed alone.
pub struct Dice(blake3::OutputReader);

impl Dice {
    /// The dice of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(blake3::Hasher::new().update(b"dice").update(&seed.to_le_bytes()).finalize_xof())
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end
    }
}
