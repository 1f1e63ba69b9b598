//! Destroy: from whatever state to the tombstone, for ever (HA 1.2, 2.3; PKCS #11 v3.1, 5.7.3).
use spec::messages::{Destroy, Done, Outcome};
use spec::record::{Record, State};
use spec::{AttributeType as A, Rv};

use super::flag;
use crate::bounds;
use crate::contents::Change;
use crate::error::Refusal;
use crate::partition::Partition;
use crate::roles::Access;
use crate::session_objects::is_private;

impl Partition {
    pub(crate) fn destroy(&self, access: &Access<'_>, destroy: &Destroy) -> Result<Done, Refusal> {
        let object = bounds::object(destroy.object.as_ref())?;
        if !object.blob_hash.is_empty() || !object.blob.is_empty() {
            // Nothing of a session object is stored; the client forgets its blob (RULES 2.2).
            let contents = self.contents.read();
            let held = self.resolve(&contents, access, object, Rv::OBJECT_HANDLE_INVALID)?;
            return check(&held.record).map(|()| Done {});
        }
        let ouid = bounds::ouid(object.ouid)?;
        self.write(|contents| {
            // A provisional record is destroyed too: its Commit may be on its way here while others have it already.
            let held = contents.index.get(&ouid).ok_or_else(|| {
                Refusal::new(Outcome::UNKNOWN, "this member holds no object of that ouid; another may")
                    .about(ouid)
            })?;
            if held.record.state() == State::Deleted {
                access.login.ok_or(Rv::USER_NOT_LOGGED_IN)?;
                return Ok((Change::default(), Done {}));
            }
            if is_private(&held.record) && !access.sees_private() {
                return Err(Rv::OBJECT_HANDLE_INVALID.into());
            }
            access.writer(is_private(&held.record))?;
            check(&held.record)?;
            Ok((Change { records: vec![Record::tombstone(ouid)], ..Change::default() }, Done {}))
        })
    }
}

fn check(record: &Record) -> Result<(), Refusal> {
    if flag(record, A::DESTROYABLE) { Ok(()) } else { Err(Rv::ACTION_PROHIBITED.into()) }
}
