//! Repair: digests compared, sealed records taken out and joined (HA 1.2, 1.6, 4.6; RULES 3.3).
use std::collections::BTreeSet;

use prost::Message;
use spec::messages::{
    Compare, CompareAnswer, Export, ExportAnswer, Join, JoinAnswer, RecordDigest, SealedRecord,
};
use spec::record::State;

use crate::bounds;
use crate::contents::{Change, open_record, seal_record};
use crate::digest_tree::BUCKETS;
use crate::error::Refusal;
use crate::manifest::is_newer;
use crate::partition::Partition;
use crate::roles::Access;

/// Bytes of sealed records in one export; who wants more asks again for those that are missing.
const EXPORT_BYTES_MAX: usize = 8 << 20;
/// Records in the answer to one comparison of buckets.
const COMPARE_RECORDS_MAX: usize = 100_000;

impl Partition {
    pub(crate) fn compare(&self, compare: &Compare) -> Result<CompareAnswer, Refusal> {
        bounds::at_most("buckets", compare.buckets.len(), usize::from(BUCKETS))?;
        let contents = self.contents.read();
        let root = contents.index.tree.root().0.to_vec();
        if compare.buckets.is_empty() {
            let buckets = contents.index.tree.buckets().iter().flat_map(|bucket| bucket.0).collect();
            return Ok(CompareAnswer { root, buckets, records: Vec::new() });
        }
        let mut records = Vec::new();
        let mut seen = BTreeSet::new();
        for bucket in &compare.buckets {
            let bucket = u16::try_from(*bucket).ok().filter(|bucket| *bucket < BUCKETS);
            let bucket =
                bucket.ok_or_else(|| Refusal::malformed(format!("wanted a bucket below {BUCKETS}")))?;
            if !seen.insert(bucket) {
                return Err(Refusal::malformed("wanted each bucket once in a comparison, found one twice"));
            }
            let counted = contents
                .index
                .bucket(bucket)
                .filter(|(_, held)| matches!(held.record.state(), State::Committed | State::Deleted));
            records.extend(
                counted.map(|(ouid, held)| RecordDigest {
                    ouid: ouid.0.to_vec(),
                    digest: held.digest.0.to_vec(),
                }),
            );
            bounds::at_most("records in these buckets", records.len(), COMPARE_RECORDS_MAX)?;
        }
        Ok(CompareAnswer { root, buckets: Vec::new(), records })
    }

    /// Sealed records, committed or deleted; those that would pass the bound of bytes are left out.
    pub(crate) fn export(&self, access: &Access<'_>, export: &Export) -> Result<ExportAnswer, Refusal> {
        access.repairer()?;
        bounds::at_most("ouids", export.ouids.len(), bounds::RECORDS_MAX)?;
        let contents = self.contents.read();
        let mut records = Vec::new();
        let mut bytes = 0;
        for ouid in &export.ouids {
            let ouid = bounds::ouid(ouid)?;
            let Some(held) = contents.index.get(&ouid) else { continue };
            if held.record.state() == State::Provisional {
                continue;
            }
            let sealed = seal_record(&self.sealer, contents.group(), &held.record);
            bytes += sealed.len();
            if bytes > EXPORT_BYTES_MAX && !records.is_empty() {
                break;
            }
            records.extend(SealedRecord::decode(sealed.as_slice()));
        }
        Ok(ExportAnswer {
            records,
            credentials: if export.credentials { self.sealed_credentials(&contents) } else { Vec::new() },
            manifest: if export.manifest { self.sealed_manifest(&contents) } else { Vec::new() },
        })
    }

    /// Joins what peers hold with what is held here, in one transaction (HA 1.2).
    pub(crate) fn join(&self, access: &Access<'_>, join: &Join) -> Result<JoinAnswer, Refusal> {
        access.repairer()?;
        bounds::at_most("records", join.records.len(), bounds::RECORDS_MAX)?;
        self.write(|contents| {
            let mut change = Change::default();
            let mut answer = JoinAnswer::default();
            for sealed in &join.records {
                let incoming = open_record(&self.sealer, contents.group(), sealed)?;
                if incoming.state() == State::Provisional {
                    return Err(Refusal::malformed(
                        "wanted committed or deleted records, found a provisional one",
                    ));
                }
                let ouid = bounds::ouid(&incoming.ouid)?;
                if change.records.iter().any(|record| record.id() == Some(ouid)) {
                    return Err(Refusal::malformed("wanted each record once in a join, found one twice"));
                }
                let held = contents.index.get(&ouid).map(|held| &held.record);
                let joined = held.map_or_else(|| incoming.clone(), |held| held.join(&incoming));
                if held != Some(&joined) {
                    answer.changed += 1;
                    answer.quarantined +=
                        u32::from(joined.quarantined && !held.is_some_and(|held| held.quarantined));
                    change.records.push(joined);
                }
            }
            if !join.credentials.is_empty() {
                let credentials = self.open_credentials(contents.group(), &join.credentials)?;
                change.credentials = credentials.is_newer(&contents.credentials).then_some(credentials);
            }
            if !join.manifest.is_empty() {
                let manifest = self.open_manifest(contents.group(), &join.manifest)?;
                change.manifest = is_newer(&manifest, &contents.manifest).then_some(manifest);
            }
            change.recovering = (join.repaired && contents.recovering).then_some(false);
            Ok((change, answer))
        })
    }
}
