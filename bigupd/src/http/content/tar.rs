//! The format of an archive: ustar (POSIX.1-2001, pax), as GNU tar, bsdtar and Python's tarfile read it.
//!
//! A member is its head, its bytes, and zeros up to a whole block. Everything is fixed but name, size and time, so the
//! same files are the same bytes. A pax header comes first where the head has no place for one of the three.

/// Length of a block, in bytes.
pub const BLOCK: u64 = 512;

/// Bytes at the end of an archive, all of them zero.
pub const END: u64 = 2 * BLOCK;

/// First size and time that eleven octal digits cannot tell.
const TOO_LARGE: u64 = 1 << 33;

/// Longest name that a head has space for, in bytes.
const MAX_NAME: usize = 100;

/// The kind of a regular file, and that of a pax header for the next member.
const FILE: u8 = b'0';
const PAX: u8 = b'x';

/// The bytes before those of a file of this name and `size`, last written to `modified` seconds after 1970.
pub fn head(name: &str, size: u64, modified: i64) -> Vec<u8> {
    let records = records(name, size, modified);
    let mut head = vec![];
    if !records.is_empty() {
        // Readers that know pax never see this name.
        head.extend(block(b"././@PaxHeader", records.len() as u64, 0, PAX));
        head.extend(&records);
        head.resize(head.len() + padding(records.len() as u64) as usize, 0);
    }
    let plain: Vec<u8> = name.chars().map(|c| if c.is_ascii() { c as u8 } else { b'_' }).take(MAX_NAME).collect();
    let seconds = u64::try_from(modified).ok().filter(|seconds| *seconds < TOO_LARGE).unwrap_or(0);
    head.extend(block(&plain, if size < TOO_LARGE { size } else { 0 }, seconds, FILE));
    head
}

/// Number of zeros after `size` bytes of a member.
pub fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// The records of the pax header; none if the head tells all.
fn records(name: &str, size: u64, modified: i64) -> Vec<u8> {
    let mut records = vec![];
    if name.len() > MAX_NAME || !name.is_ascii() {
        records.extend(record("path", name));
    }
    if size >= TOO_LARGE {
        records.extend(record("size", &size.to_string()));
    }
    if u64::try_from(modified).is_ok_and(|seconds| seconds < TOO_LARGE) {
        return records;
    }
    records.extend(record("mtime", &modified.to_string()));
    records
}

/// A record, which begins with its own length.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}").into_bytes()
}

/// A block of ustar: mode 0644, owner and group 0 without names, no links, no devices.
fn block(name: &[u8], size: u64, modified: u64, kind: u8) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{modified:011o}\0").as_bytes());
    // The sum counts its own field as spaces.
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap().trim_end_matches('\0')
    }

    #[test]
    fn a_usual_file_has_one_block_before_it() {
        let head = head("a/b.txt", 1234, 784_111_777);
        assert_eq!(head.len(), 512);
        let fields = [0..100, 100..108, 124..136, 136..148, 156..157, 257..263].map(|field| text(&head[field]));
        assert_eq!(fields, ["a/b.txt", "0000644", "00000002322", "05657114241", "0", "ustar"]);
        let sum: u64 =
            head.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) }).sum();
        assert_eq!(text(&head[148..154]), format!("{sum:06o}"));
    }

    #[test]
    fn a_pax_header_tells_what_has_no_place() {
        let long = "x".repeat(101);
        for (name, size, modified, records) in [
            (&*"x".repeat(100), (1 << 33) - 1, (1 << 33) - 1, String::new()),
            (&*long, 0, 0, format!("111 path={long}\n")),
            ("文", 0, 0, "12 path=文\n".to_owned()),
            ("a", 1 << 33, 0, "19 size=8589934592\n".to_owned()),
            ("a", 0, -5, "12 mtime=-5\n".to_owned()),
            ("a", 0, 1 << 33, "20 mtime=8589934592\n".to_owned()),
            ("é", u64::MAX, -1, "11 path=é\n29 size=18446744073709551615\n12 mtime=-1\n".to_owned()),
        ] {
            let head = head(name, size, modified);
            assert_eq!(head.len() % 512, 0);
            match records.is_empty() {
                true => assert_eq!(head.len(), 512),
                false => assert_eq!((head[156], text(&head[512..head.len() - 512])), (b'x', &*records), "{name}"),
            }
        }
    }

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for len in 1..1200 {
            let record = record("path", &"x".repeat(len));
            assert_eq!(text(&record).split(' ').next(), Some(&*record.len().to_string()));
        }
    }

    #[test]
    fn members_end_with_whole_blocks() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
