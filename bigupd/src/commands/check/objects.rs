//! Finished files that are objects of a store: each is read, and compared with the digest that was noted of it.

use super::{Check, Finding, Repair};
use bigup_core::protocol::digest::{DigestKind, SliceHasher};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::MIB;
use bigup_core::storage::store::{OpenFile, Store, StoredDigest};
use std::io;
use std::ops::ControlFlow;

impl Check<'_> {
    /// All objects of the names that are asked for.
    pub(super) fn check_objects(&mut self, unseen: &mut Vec<FileName>) {
        let store = Store::new(&self.data);
        let prefixes: Vec<String> = match &self.arguments.names[..] {
            [] => vec![String::new()],
            names => names.iter().map(|name| name.as_str().to_owned()).collect(),
        };
        for prefix in prefixes {
            let listed = store.list(&prefix, "", |file| {
                if self.is_asked_for(file.name.as_str(), unseen) {
                    self.check_object(&store, &file.name);
                }
                ControlFlow::Continue(())
            });
            if let Err(e) = listed {
                self.failed("file", &prefix, &e.to_string());
            }
        }
    }

    fn check_object(&mut self, store: &Store, name: &FileName) {
        let open = match store.open_file(name) {
            Ok(Some(open)) => open,
            // It was removed meanwhile.
            Ok(None) => return,
            Err(e) => return self.failed("file", name.as_str(), &e.to_string()),
        };
        let Some(StoredDigest { digest, .. }) = open.stored_digest.clone() else {
            let what = format!("no digest of its {} bytes is noted: another program stored it", open.size);
            return self.unknown(name.as_str(), &what);
        };
        match read(&open) {
            Err(e) => return self.failed("file", name.as_str(), &e.to_string()),
            Ok(is) if is == digest => {}
            Ok(_) => {
                let finding = Finding { bytes: None, slices: None, what: "not what was published".to_owned() };
                let repair = match self.arguments.repair {
                    true => Repair::Failed("an object stays: push the file again, and replace it".to_owned()),
                    false => Repair::NotAsked,
                };
                self.damaged("file", name.as_str(), &[finding], &repair);
            }
        }
        self.tally.files += 1;
        self.tally.bytes += open.size;
    }
}

fn read(open: &OpenFile) -> io::Result<bigup_core::protocol::digest::Digest> {
    let (mut hasher, mut at) = (SliceHasher::new(DigestKind::Hash, 0), 0);
    let mut piece = vec![0; usize::try_from(open.size.min(MIB)).unwrap_or(0)];
    while at < open.size {
        let len = usize::try_from(open.size - at).unwrap_or(piece.len()).min(piece.len());
        open.content.read_exact_at(&mut piece[..len], at)?;
        hasher.update(&piece[..len]);
        at += len as u64;
    }
    Ok(hasher.finish().digest)
}
