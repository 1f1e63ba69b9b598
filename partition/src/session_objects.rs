//! Session objects as sealed blobs (RULES 2.2): nothing of them is stored; members keep opened ones in a bounded cache.
//!
//! ```text
//! wire: privacy 1 byte (0 public, 1 private) | envelope
//! ```
//! The context comes from the request: client and instance of the link, the login of the ticket when the blob says
//! that it is private. A cached blob is handed out only in the context in which it was opened.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::Mutex;
use prost::Message;
use spec::messages::Outcome;
use spec::record::Record;
use spec::{AttributeType, Rv, value};
use zeroize::Zeroizing;

use crate::bounds;
use crate::digest_tree::Digest;
use crate::error::Refusal;
use crate::index::Held;
use crate::objects::Named;
use crate::partition::Partition;
use crate::roles::Access;
use crate::seal::{Context, Group, NotOpened, What};

/// Opened blobs by SHA-256 of the whole blob; the oldest leaves first.
pub(crate) struct BlobCache {
    entries_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<[u8; 32], Cached>,
    order: VecDeque<[u8; 32]>,
    bytes: usize,
}

#[derive(Clone)]
struct Cached {
    private: bool,
    /// The context in which it was opened.
    context: Vec<u8>,
    held: Arc<Held>,
    bytes: usize,
}

impl BlobCache {
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries_max, bytes_max, inner: Mutex::default() }
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Cached> {
        self.inner.lock().entries.get(hash).cloned()
    }

    fn insert(&self, hash: [u8; 32], cached: Cached) {
        if cached.bytes > self.bytes_max || self.entries_max == 0 {
            return;
        }
        let mut inner = self.inner.lock();
        while inner.order.len() >= self.entries_max || inner.bytes + cached.bytes > self.bytes_max {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(old) = inner.entries.remove(&oldest) {
                inner.bytes -= old.bytes;
            }
        }
        inner.bytes += cached.bytes;
        if let Some(same) = inner.entries.insert(hash, cached) {
            inner.bytes -= same.bytes;
        } else {
            inner.order.push_back(hash);
        }
    }
}

/// Whether a record is of a private object.
pub(crate) fn is_private(record: &Record) -> bool {
    record.get(AttributeType::PRIVATE).and_then(value::as_bool).unwrap_or(true)
}

fn what<'a>(access: &'a Access<'a>, private: bool) -> Option<What<'a>> {
    let login = match &access.login {
        Some(login) if private && access.sees_private() => Some(&login.login),
        _ if private => return None,
        _ => None,
    };
    Some(What::Blob { client: &access.caller.client, instance: &access.caller.instance, login })
}

impl Partition {
    /// Seals a session object for the session's instance.
    pub(crate) fn seal_blob(
        &self,
        group: Group,
        access: &Access<'_>,
        record: &Record,
    ) -> Result<Vec<u8>, Refusal> {
        let private = is_private(record);
        let what = what(access, private).ok_or(Rv::USER_NOT_LOGGED_IN)?;
        let plain = Zeroizing::new(record.encode_to_vec());
        let mut blob = vec![u8::from(private)];
        blob.extend_from_slice(&self.sealer.seal(&Context { group, what }, &plain));
        Ok(blob)
    }

    /// The session object that a request names, from the cache or from the blob that came along. `hidden` is the
    /// answer for a private one without a login.
    pub(crate) fn open_blob(
        &self,
        group: Group,
        access: &Access<'_>,
        object: Named<'_>,
        hidden: Rv,
    ) -> Result<Arc<Held>, Refusal> {
        let ouid = bounds::ouid(object.ouid)?;
        let hash: [u8; 32] = object
            .blob_hash
            .try_into()
            .map_err(|_| Refusal::malformed("wanted the SHA-256 of a blob, found another length"))?;
        let cached = self.blobs.get(&hash);
        let private = match (&cached, object.blob.first()) {
            (Some(cached), _) => cached.private,
            (None, Some(0)) => false,
            (None, Some(1)) => true,
            (None, Some(_)) => return Err(NotOpened.into()),
            (None, None) => {
                let text = "this session object is not cached here; send its blob along";
                return Err(Refusal::new(Outcome::NEED_BLOB, text).about(ouid));
            }
        };
        let what = what(access, private).ok_or(hidden)?;
        let context = Context { group, what };
        let mut expected = Vec::new();
        context.encode(&mut expected);
        let held = match cached {
            Some(cached) if cached.context == expected => cached.held,
            Some(_) => return Err(NotOpened.into()),
            None => {
                if digest::digest(&digest::SHA256, object.blob).as_ref() != hash {
                    return Err(Refusal::malformed(
                        "wanted a blob with the hash beside it, found another hash",
                    ));
                }
                let plain = self.sealer.open(&context, &object.blob[1..])?;
                let record = Record::decode(plain.as_slice()).map_err(|_| NotOpened)?;
                let held = Arc::new(Held::new(record, 0, Digest::ZERO));
                let bytes = object.blob.len();
                self.blobs.insert(hash, Cached { private, context: expected, held: held.clone(), bytes });
                held
            }
        };
        if held.record.id() == Some(ouid) && is_private(&held.record) == private {
            Ok(held)
        } else {
            Err(NotOpened.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(bytes: usize) -> Cached {
        let held = Arc::new(Held::new(Record::default(), 0, Digest::ZERO));
        Cached { private: false, context: Vec::new(), held, bytes }
    }

    #[test]
    fn the_cache_is_bounded_by_entries_and_bytes_and_drops_the_oldest() {
        let cache = BlobCache::new(3, 100);
        (1..=5).for_each(|number| cache.insert([number; 32], cached(10)));
        assert!(cache.get(&[2; 32]).is_none() && cache.get(&[3; 32]).is_some());
        cache.insert([6; 32], cached(90));
        assert!(cache.get(&[4; 32]).is_none() && cache.get(&[5; 32]).is_some());
        cache.insert([7; 32], cached(101));
        assert!(cache.get(&[7; 32]).is_none());
        cache.insert([5; 32], cached(10));
        assert_eq!(cache.inner.lock().bytes, 100, "the same blob counts once");
    }
}
