//! The boot of the kernel that wrote something.

use super::random_suffix;
use std::sync::OnceLock;

/// A boot of the kernel, the lifetime of the data in its memory: data written under another boot may not have reached
/// the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootId(pub [u8; 8]);

impl BootId {
    /// No kernel: data with this id are never trusted.
    pub const NONE: BootId = BootId([0; 8]);

    /// The kernel that runs now: the first 8 bytes of the BLAKE3 hash of /proc/sys/kernel/random/boot_id (random(4)).
    /// Where that cannot be read it is a random one, so that nothing is trusted.
    pub fn current() -> BootId {
        static CURRENT: OnceLock<BootId> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_else(|e| {
                log::warn!("cannot read the kernel's boot id, all held slices will be checked by digest: {e}");
                random_suffix().into_bytes()
            });
            let hash = blake3::hash(&text);
            BootId(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_stays_the_same() {
        assert_eq!(BootId::current(), BootId::current());
    }
}
