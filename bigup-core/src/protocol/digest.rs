//! BLAKE3 digests of slices, and how they join to the digest of the file. No I/O.
//!
//! BLAKE3 is a binary tree over chunks of 1024 bytes (BLAKE3 paper, section 2.1). A slice of 1024·2^k bytes at a
//! multiple of its own length is a whole subtree. A shorter last slice at the right edge is one too. Its *chaining
//! value* is computed from the slice alone. It joins with its neighbours' values to the root that `b3sum` prints, so
//! the bytes are not read again. Other slices carry the plain BLAKE3 *hash* of their bytes: slices of other lengths,
//! slices whose offset is not known yet, and the only slice of a file.

use crate::protocol::plan::Plan;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::fmt;
use std::str::FromStr;

/// Bytes of a BLAKE3 chunk: slice lengths of this times a power of 2 are whole subtrees.
pub const CHUNK_LEN: u64 = blake3::CHUNK_LEN as u64;

/// A BLAKE3 value: 32 bytes, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        match blake3::Hash::from_hex(text) {
            Ok(hash) => Ok(Digest(*hash.as_bytes())),
            Err(_) => Err(format!(
                "a BLAKE3 digest has 64 hexadecimal digits, this one has {} characters",
                text.chars().count()
            )),
        }
    }
}

/// The input of a slice's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestKind {
    /// The chaining value of the slice as a subtree of the file, at its offset.
    ChainingValue,
    /// The plain BLAKE3 hash of the slice's bytes.
    Hash,
}

/// The digest of one slice; on the wire `cv:` or `hash:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SliceDigest {
    /// The input of the digest.
    pub kind: DigestKind,
    /// The value.
    pub digest: Digest,
}

impl fmt::Display for SliceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DigestKind::ChainingValue => "cv",
            DigestKind::Hash => "hash",
        };
        write!(f, "{kind}:{}", self.digest)
    }
}

impl fmt::Debug for SliceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SliceDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<SliceDigest, String> {
        let (kind, hex) = text.split_once(':').ok_or("a slice digest is cv: or hash: and 64 hexadecimal digits")?;
        let kind = match kind {
            "cv" => DigestKind::ChainingValue,
            "hash" => DigestKind::Hash,
            _ => return Err("a slice digest begins with cv: or hash:".to_owned()),
        };
        Ok(SliceDigest { kind, digest: hex.parse()? })
    }
}

/// True if slices of `slice_size` bytes are whole subtrees, so that their chaining values join.
pub fn is_subtree_size(slice_size: u64) -> bool {
    slice_size >= CHUNK_LEN && slice_size.is_power_of_two()
}

/// The kind of digest that slice `slice_id` of an upload cut by `plan` carries.
///
/// While the number of slices is not known the slice counts as one of several.
pub fn kind_of(plan: &Plan, slice_id: u64) -> DigestKind {
    match plan.slice_size {
        Some(size) if plan.slice_num != Some(1) && is_subtree_size(size) && plan.offset_of(slice_id).is_some() => {
            DigestKind::ChainingValue
        }
        _ => DigestKind::Hash,
    }
}

/// Digests one slice as its bytes come by.
pub struct SliceHasher {
    kind: DigestKind,
    hasher: blake3::Hasher,
}

impl SliceHasher {
    /// Begins with a slice at `offset` bytes, which matters to chaining values only.
    ///
    /// For [`DigestKind::ChainingValue`] the offset must be a multiple of the slice's full length, and at least one
    /// byte and at most that length must follow.
    pub fn new(kind: DigestKind, offset: u64) -> SliceHasher {
        let mut hasher = blake3::Hasher::new();
        if kind == DigestKind::ChainingValue {
            hasher.set_input_offset(offset);
        }
        SliceHasher { kind, hasher }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Takes `len` zeroes.
    pub fn update_zeroes(&mut self, mut len: u64) {
        while len > 0 {
            let piece = len.min(ZEROES.len() as u64);
            self.update(&ZEROES[..piece as usize]);
            len -= piece;
        }
    }

    /// The digest of all bytes taken.
    pub fn finish(&self) -> SliceDigest {
        let digest = match self.kind {
            DigestKind::ChainingValue => Digest(self.hasher.finalize_non_root()),
            DigestKind::Hash => Digest(*self.hasher.finalize().as_bytes()),
        };
        SliceDigest { kind: self.kind, digest }
    }
}

/// Zeroes to be digested at once.
static ZEROES: [u8; 256 << 10] = [0; 256 << 10];

/// True if `bytes` are zeroes.
pub fn are_zeroes(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROES.len()).all(|piece| *piece == ZEROES[..piece.len()])
}

/// Digests slice `slice_id` of an upload cut by `plan`, by the kind of digest that it carries.
pub fn hasher_of(plan: &Plan, slice_id: u64) -> SliceHasher {
    SliceHasher::new(kind_of(plan, slice_id), plan.offset_of(slice_id).unwrap_or(0))
}

/// The digest of the whole slice `bytes` in place `slice_id` of an upload cut by `plan`.
pub fn of_slice(plan: &Plan, slice_id: u64, bytes: &[u8]) -> SliceDigest {
    let mut hasher = hasher_of(plan, slice_id);
    hasher.update(bytes);
    hasher.finish()
}

/// The plain BLAKE3 hash of `bytes`.
pub fn of_bytes(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Joins the chaining values of equal slices, given in order, to the digest of the file. Memory grows with the
/// logarithm of their number.
///
/// The last slice can be shorter. Same method as BLAKE3's own stack of subtrees (BLAKE3 paper, section 5.1.2): two
/// subtrees are merged only once something follows them, since the last merge of all is a different one (the root).
#[derive(Clone, Default)]
pub struct TreeJoin {
    stack: Vec<[u8; 32]>,
    count: u64,
}

impl TreeJoin {
    /// Begins with nothing.
    pub fn new() -> TreeJoin {
        TreeJoin::default()
    }

    /// Takes the chaining value of the next slice.
    pub fn push(&mut self, chaining_value: Digest) {
        while self.stack.len() > self.count.count_ones() as usize {
            self.merge_top();
        }
        self.stack.push(chaining_value.0);
        self.count += 1;
    }

    /// The digest of the file.
    ///
    /// `None` for fewer than two slices: one alone has no chaining value that leads to the root.
    pub fn finish(mut self) -> Option<Digest> {
        while self.stack.len() > 2 {
            self.merge_top();
        }
        let (right, left) = (self.stack.pop()?, self.stack.pop()?);
        Some(Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
    }

    /// The chaining value of all slices taken, as one subtree of a file that goes on; `None` if no slice was taken.
    pub fn finish_subtree(mut self) -> Option<Digest> {
        while self.stack.len() > 1 {
            self.merge_top();
        }
        self.stack.pop().map(Digest)
    }

    fn merge_top(&mut self) {
        let right = self.stack.pop().expect("callers checked that there are two");
        let left = self.stack.pop().expect("callers checked that there are two");
        self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }
}

/// Bytes of the subtrees that a [`RunningHash`] is made of: 1024·2^k, many enough to be hashed at full speed, few enough to be
/// kept as they are.
const RUN_LEN: usize = 64 << 10;

/// The plain BLAKE3 hash of bytes that come by, which can be kept on disk at any byte and gone on with: the chaining values of
/// the whole subtrees so far, and the bytes after them. At most 70 KiB.
#[derive(Clone, Default)]
pub struct RunningHash {
    join: TreeJoin,
    rest: Vec<u8>,
}

impl RunningHash {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A subtree is whole once something follows it: the last one can be the root.
            if self.rest.len() == RUN_LEN {
                let value = self.subtree(&self.rest);
                self.join.push(value);
                self.rest.clear();
            }
            if self.rest.is_empty() && bytes.len() > RUN_LEN {
                let (run, after) = bytes.split_at(RUN_LEN);
                let value = self.subtree(run);
                self.join.push(value);
                bytes = after;
                continue;
            }
            let (taken, after) = bytes.split_at(bytes.len().min(RUN_LEN - self.rest.len()));
            self.rest.extend_from_slice(taken);
            bytes = after;
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.join.count * RUN_LEN as u64 + self.rest.len() as u64
    }

    /// True if it took no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of all bytes taken.
    pub fn finish(&self) -> Digest {
        let mut join = self.join.clone();
        join.push(if join.count > 0 { self.subtree(&self.rest) } else { of_bytes(&self.rest) });
        // A single subtree is the root itself.
        join.finish().unwrap_or_else(|| of_bytes(&self.rest))
    }

    /// All that is needed to go on, as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.join.count.to_le_bytes().to_vec();
        self.join.stack.iter().for_each(|value| bytes.extend_from_slice(value));
        bytes.extend_from_slice(&self.rest);
        bytes
    }

    /// Goes on from [`RunningHash::to_bytes`]. `None` if these are no such bytes. True if they are the right ones only
    /// the caller can tell.
    pub fn from_bytes(bytes: &[u8]) -> Option<RunningHash> {
        let (count, mut left) = bytes.split_first_chunk()?;
        let count = u64::from_le_bytes(*count);
        // As many as a push leaves.
        let values = count.checked_sub(1).map_or(0, |before| before.count_ones() + 1);
        let mut stack = vec![];
        for _ in 0..values {
            let (value, after) = left.split_first_chunk()?;
            stack.push(*value);
            left = after;
        }
        let is_possible =
            count < u64::MAX / RUN_LEN as u64 && left.len() <= RUN_LEN && (count == 0 || !left.is_empty());
        is_possible.then(|| RunningHash { join: TreeJoin { stack, count }, rest: left.to_vec() })
    }

    /// The chaining value of the bytes after the subtrees so far.
    fn subtree(&self, bytes: &[u8]) -> Digest {
        let mut hasher = SliceHasher::new(DigestKind::ChainingValue, self.join.count * RUN_LEN as u64);
        hasher.update(bytes);
        hasher.finish().digest
    }
}

/// Most leaves that are kept of a file: 2 KiB of digests, which any extended attribute holds.
pub const MAX_LEAVES: u64 = 64;

/// The chaining values of a file's leaves: equal parts, at most [`MAX_LEAVES`], whose digests join to the file's. They
/// are stored beside the file and tell later which part of it is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// Bytes of a leaf: 1024·2^k. The last leaf can be shorter.
    pub leaf_len: u64,
    /// Their chaining values, in order; at least two.
    pub values: Vec<Digest>,
}

impl Leaves {
    /// The digest of the file that they are of. `None` if they are fewer than two.
    pub fn root(&self) -> Option<Digest> {
        let mut join = TreeJoin::new();
        self.values.iter().for_each(|value| join.push(*value));
        join.finish()
    }
}

/// Joins the chaining values of slices, given in order, to those of leaves.
pub struct LeafJoin {
    slice_size: u64,
    slices_per_leaf: u64,
    leaf: TreeJoin,
    values: Vec<Digest>,
}

impl LeafJoin {
    /// Begins a file of `slice_num` slices of `slice_size` bytes, which [is a subtree's](is_subtree_size).
    pub fn new(slice_size: u64, slice_num: u64) -> LeafJoin {
        let slices_per_leaf = slice_num.div_ceil(MAX_LEAVES).next_power_of_two();
        LeafJoin { slice_size, slices_per_leaf, leaf: TreeJoin::new(), values: vec![] }
    }

    /// Takes the chaining value of the next slice.
    pub fn push(&mut self, chaining_value: Digest) {
        if self.leaf.count == self.slices_per_leaf {
            self.end_leaf();
        }
        self.leaf.push(chaining_value);
    }

    /// The leaves of the file.
    pub fn finish(mut self) -> Leaves {
        self.end_leaf();
        Leaves { leaf_len: self.slice_size * self.slices_per_leaf, values: self.values }
    }

    fn end_leaf(&mut self) {
        self.values.extend(std::mem::take(&mut self.leaf).finish_subtree());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    fn joined(data: &[u8], slice_size: u64) -> Digest {
        let plan = Plan::new(None, Some(slice_size), Some(data.len() as u64)).unwrap();
        let mut join = TreeJoin::new();
        let mut one = None;
        for (id, slice) in data.chunks(slice_size as usize).enumerate() {
            let digest = of_slice(&plan, id as u64, slice);
            match digest.kind {
                DigestKind::ChainingValue => join.push(digest.digest),
                DigestKind::Hash => one = Some(digest.digest),
            }
        }
        one.or_else(|| join.finish()).unwrap()
    }

    #[test]
    fn joined_slices_equal_the_plain_hash() {
        for slice_size in [1024, 2048, 4096, 16384, 65536] {
            for slices in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17] {
                for len in [slices * slice_size - 1, slices * slice_size, slices * slice_size + 1] {
                    let data = bytes(len);
                    assert_eq!(joined(&data, slice_size as u64), of_bytes(&data), "{len} bytes by {slice_size}");
                }
            }
        }
    }

    #[test]
    fn joins_many_small_slices() {
        for slices in [99, 100, 127, 128, 129, 1000] {
            let data = bytes(slices * 1024 + 1);
            assert_eq!(joined(&data, 1024), of_bytes(&data));
        }
    }

    #[test]
    fn leaves_are_few_equal_parts_that_join_to_the_plain_hash() {
        for slices in [2, 3, 63, 64, 65, 128, 129, 1000] {
            let data = bytes(slices * 1024 - 1);
            let plan = Plan::new(None, Some(1024), Some(data.len() as u64)).unwrap();
            let mut join = LeafJoin::new(1024, slices as u64);
            for (id, slice) in data.chunks(1024).enumerate() {
                join.push(of_slice(&plan, id as u64, slice).digest);
            }
            let leaves = join.finish();
            assert_eq!(leaves.root(), Some(of_bytes(&data)), "{slices}");
            assert!((2..=64).contains(&leaves.values.len()) && (slices < 64 || leaves.values.len() > 31), "{slices}");
            for (i, part) in data.chunks(leaves.leaf_len as usize).enumerate() {
                let mut hasher = SliceHasher::new(DigestKind::ChainingValue, i as u64 * leaves.leaf_len);
                hasher.update(part);
                assert_eq!(hasher.finish().digest, leaves.values[i], "leaf {i} of {slices} slices");
            }
        }
        assert_eq!(LeafJoin::new(1024, 0).finish().root(), None);
    }

    #[test]
    fn a_running_hash_is_the_plain_one_wherever_it_was_kept() {
        for len in [0, 1, RUN_LEN - 1, RUN_LEN, RUN_LEN + 1, 2 * RUN_LEN, 5 * RUN_LEN + 77, 8 * RUN_LEN] {
            let data = bytes(len);
            for piece in [1000, RUN_LEN, 3 * RUN_LEN + 1] {
                let mut running = RunningHash::default();
                for bytes in data.chunks(piece) {
                    running.update(bytes);
                    running = RunningHash::from_bytes(&running.to_bytes()).unwrap();
                }
                assert_eq!((running.len(), running.finish()), (len as u64, of_bytes(&data)), "{len} by {piece}");
                assert_eq!(running.is_empty(), len == 0);
            }
        }
    }

    #[test]
    fn what_is_no_running_hash_is_told() {
        let mut running = RunningHash::default();
        running.update(&bytes(3 * RUN_LEN + 5));
        let kept = running.to_bytes();
        for cut in [0, 7, 8, 40, 71, 72] {
            assert!(RunningHash::from_bytes(&kept[..cut]).is_none(), "{cut}");
        }
        assert!(RunningHash::from_bytes(&[kept, bytes(RUN_LEN)].concat()).is_none());
        assert!(RunningHash::from_bytes(&[0xff; 4096]).is_none());
    }

    #[test]
    fn the_kind_follows_from_the_plan() {
        let plan = |num, size, file| Plan::new(num, size, file).unwrap();
        let chaining = |plan: &Plan, id| kind_of(plan, id) == DigestKind::ChainingValue;
        assert!(chaining(&plan(None, Some(1024), Some(1025)), 1));
        assert!(!chaining(&plan(None, Some(1024), Some(1024)), 0), "the only slice");
        assert!(!chaining(&plan(None, Some(1000), Some(5000)), 0), "no subtree");
        assert!(!chaining(&plan(None, Some(512), Some(5000)), 0), "below a chunk");
        assert!(!chaining(&plan(Some(3), None, None), 2), "offset not known");
        assert!(chaining(&plan(None, Some(8 << 20), None), 0), "unknown length");
    }

    #[test]
    fn digests_are_read_and_shown() {
        let digest = of_slice(&Plan::new(None, Some(1024), Some(4096)).unwrap(), 1, &bytes(1024));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let short = "cv:00".parse::<SliceDigest>().unwrap_err();
        assert!(short.contains("64") && short.contains('2'), "{short}");
        for bad in ["", "cv:", "sha1:00", &"é".repeat(40), &format!("cv:{}", "g".repeat(64))] {
            assert!(bad.parse::<SliceDigest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_subtree_has_no_root() {
        let mut join = TreeJoin::new();
        assert_eq!(TreeJoin::new().finish(), None);
        join.push(of_bytes(b"x"));
        assert_eq!(join.finish(), None);
    }
}
