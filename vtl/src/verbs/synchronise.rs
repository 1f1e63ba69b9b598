//! Copies what one member holds and another lacks, by their digests (HA 1.6, 4.6).

use client::conf::Serial;
use spec::messages::{Answer, Call, Compare, CompareAnswer, Export, Join};

use crate::answer::Failure;
use crate::asking::Asking;
use crate::census::Census;

/// Length of one digest.
const DIGEST_BYTES: usize = 32;
/// Buckets compared record by record in one request.
const BUCKETS_PER_REQUEST: usize = 256;
/// Records moved in one request; a record is seldom longer than a few kilobytes.
const RECORDS_PER_REQUEST: usize = 100;

/// Moves the records of `from` that differ on `to`, and says how many. `to` joins them with what it holds, so nothing
/// newer there is lost. The ticket is the Crypto Officer's of the group (RULES 3.3).
pub(crate) fn copy(census: &mut Census, from: Serial, to: Serial, ticket: &[u8]) -> Result<u64, Failure> {
    let source = compare(census, from, ticket, Vec::new())?.buckets;
    let target = compare(census, to, ticket, Vec::new())?.buckets;
    let mut different = Vec::new();
    for (number, (ours, theirs)) in source.chunks(DIGEST_BYTES).zip(target.chunks(DIGEST_BYTES)).enumerate() {
        if ours != theirs {
            different.push(u32::try_from(number).unwrap_or(u32::MAX));
        }
    }
    let mut moved = 0;
    for buckets in different.chunks(BUCKETS_PER_REQUEST) {
        let ours = compare(census, from, ticket, buckets.to_vec())?.records;
        let theirs = compare(census, to, ticket, buckets.to_vec())?.records;
        let wanted: Vec<Vec<u8>> =
            ours.into_iter().filter(|record| !theirs.contains(record)).map(|record| record.ouid).collect();
        for ouids in wanted.chunks(RECORDS_PER_REQUEST) {
            moved += move_records(census, from, to, ticket, ouids)?;
        }
    }
    let end = Join { repaired: true, ..Join::default() };
    at(census, to, ticket)?.call(Call::Join(end))?;
    Ok(moved)
}

fn move_records(
    census: &mut Census,
    from: Serial,
    to: Serial,
    ticket: &[u8],
    ouids: &[Vec<u8>],
) -> Result<u64, Failure> {
    let export = Export { ouids: ouids.to_vec(), credentials: false, manifest: false };
    let Answer::Export(exported) = at(census, from, ticket)?.call(Call::Export(export))? else {
        return Err(unfit(from));
    };
    let moved = exported.records.len();
    let join = Join { records: exported.records, ..Join::default() };
    at(census, to, ticket)?.call(Call::Join(join))?;
    Ok(u64::try_from(moved).unwrap_or(u64::MAX))
}

fn compare(
    census: &mut Census,
    serial: Serial,
    ticket: &[u8],
    buckets: Vec<u32>,
) -> Result<CompareAnswer, Failure> {
    match at(census, serial, ticket)?.call(Call::Compare(Compare { buckets }))? {
        Answer::Compare(answer) => Ok(answer),
        _ => Err(unfit(serial)),
    }
}

fn at<'a>(census: &'a mut Census, serial: Serial, ticket: &[u8]) -> Result<Asking<'a>, Failure> {
    let reached = census.needed(serial)?;
    Ok(Asking::with_ticket(reached.appliance.as_mut(), serial, ticket.to_vec()))
}

fn unfit(serial: Serial) -> Failure {
    let wanted = format!("an answer that fits the question from partition {serial}");
    Failure::new(wanted, "another", "see that vtl and the appliance are of releases that work together")
}
