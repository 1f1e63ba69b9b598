//! Slots (RULES 2.12): the groups from 0 upwards (from 1 with `OneBaseSlotId`), then member partitions when `HAOnly` is 0; and what is said of them
//! without asking a member (RULES 2.10).
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use ha::{MemberState, MemberStatus};
use spec::flags::mechanism::HW;
use spec::flags::{slot as slot_flags, token as token_flags};
use spec::mechanisms;
use spec::messages::{Answer, Call, MechanismFacts, Status};
use spec::{MechanismType, Rv, SlotId};

use crate::asking::{Asking, strange};
use crate::conf::{Configuration, Group, RecoveryMode, Serial};
use crate::error::{Error, Result};
use crate::face::{HaState, LIBRARY_VERSION, MANUFACTURER, SlotInfo, TokenInfo};
use crate::login::LoggedIn;
use crate::process::Process;

/// Longest and shortest PIN while no member has said otherwise, in bytes.
const PIN_BYTES: (u64, u64) = (255, 7);

/// What stands behind a slot.
pub(crate) enum Behind {
    /// An HA group of the configuration, as it stands there now.
    Group(ArcSwap<Group>),
    /// One partition, by its serial number, with the label that its server told, if it did.
    Partition(u64, Option<String>),
}

/// One slot with its token: who is logged in and which sessions are open.
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    /// The serial number that applications see; it stays for the life of the process (RULES 2.12).
    pub(crate) serial: u64,
    pub(crate) behind: Behind,
    /// The group has left the configuration.
    pub(crate) gone: AtomicBool,
    /// All members were lost under `activeBasic`: the application has to begin anew.
    pub(crate) dead: AtomicBool,
    /// The login of this process (RULES 2.6).
    pub(crate) login: ArcSwapOption<LoggedIn>,
    pub(crate) sessions: AtomicU64,
    pub(crate) read_only_sessions: AtomicU64,
    /// What the token can do; once known it stays for the process (RULES 2.10).
    mechanisms: ArcSwapOption<Vec<MechanismFacts>>,
}

impl Slot {
    fn new(id: SlotId, behind: Behind) -> Arc<Self> {
        let serial = match &behind {
            Behind::Group(group) => group.load().serial.0,
            Behind::Partition(serial, _) => *serial,
        };
        Arc::new(Self {
            id,
            serial,
            behind,
            gone: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            login: ArcSwapOption::const_empty(),
            sessions: AtomicU64::new(0),
            read_only_sessions: AtomicU64::new(0),
            mechanisms: ArcSwapOption::const_empty(),
        })
    }

    /// Whether its group has left the configuration.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether anything may be asked of its members.
    ///
    /// # Errors
    /// CKR_DEVICE_REMOVED when its group has left the configuration, CKR_DEVICE_ERROR when it is dead.
    pub(crate) fn check_usable(&self) -> Result<()> {
        match (self.is_gone(), self.dead.load(Ordering::Acquire)) {
            (true, _) => Err(Rv::DEVICE_REMOVED.into()),
            (false, true) => Err(Rv::DEVICE_ERROR.into()),
            (false, false) => Ok(()),
        }
    }

    /// What an error means for the slot: a total outage under `activeBasic` is final, as it is in the vendor's client; a
    /// call that ended because its group was taken away meanwhile says so.
    pub(crate) fn judge(&self, process: &Process, error: Error) -> Error {
        match error {
            Error::Outage(_) => {
                let conf = process.configuration();
                let basic = |conf: &Arc<Configuration>| conf.recovery.mode == RecoveryMode::ActiveBasic;
                if conf.as_ref().is_some_and(basic) && !self.dead.swap(true, Ordering::AcqRel) {
                    tracing::error!(
                        slot = self.id.0,
                        "all members are lost and VirtualTokenActiveRecovery is activeBasic: this slot works again \
                         after C_Finalize and C_Initialize, or after `vtl haAdmin recover`"
                    );
                }
                error
            }
            Error::Rv(Rv::CRYPTOKI_NOT_INITIALIZED) if self.is_gone() => Rv::DEVICE_REMOVED.into(),
            _ => error,
        }
    }

    /// The serial numbers of the members.
    pub(crate) fn members(&self) -> Vec<u64> {
        match &self.behind {
            Behind::Group(group) => group.load().members.iter().map(|serial| serial.0).collect(),
            Behind::Partition(serial, _) => vec![*serial],
        }
    }

    pub(crate) fn label(&self) -> String {
        match &self.behind {
            Behind::Group(group) => group.load().label.clone(),
            Behind::Partition(serial, label) => label.clone().unwrap_or_else(|| serial.to_string()),
        }
    }
}

/// The slots that the configuration names.
pub(crate) fn configured(configuration: Option<&Configuration>) -> Vec<Arc<Slot>> {
    let Some(conf) = configuration.filter(|conf| conf.net_client) else { return Vec::new() };
    let mut behind: Vec<Behind> = conf.groups.iter().map(behind_group).collect();
    if !conf.ha_only {
        let mut seen: Vec<u64> = Vec::new();
        for serial in conf.groups.iter().flat_map(|group| &group.members).map(|serial| serial.0) {
            if !seen.contains(&serial) {
                seen.push(serial);
                behind.push(Behind::Partition(serial, None));
            }
        }
    }
    (conf.first_slot..).map(SlotId).zip(behind).map(|(id, behind)| Slot::new(id, behind)).collect()
}

fn behind_group(group: &Group) -> Behind {
    Behind::Group(ArcSwap::from_pointee(group.clone()))
}

/// Takes over the groups of a new configuration: each keeps its slot, found by serial number or else by label; new ones get
/// slots behind all others. Gives the slots whose group has come or gone (RULES 2.11, 2.12).
pub(crate) fn reconfigure(process: &Process, conf: &Configuration) -> Vec<Arc<Slot>> {
    let slots = process.slots.load_full();
    let mut changed = Vec::new();
    let mut met = Vec::new();
    let mut fresh = Vec::new();
    for group in conf.groups.iter().filter(|_| conf.net_client) {
        let Some((slot, own)) = slot_of(&slots, group) else {
            fresh.push(group);
            continue;
        };
        if slot.serial != group.serial.0 {
            tracing::warn!(
                group = slot.serial,
                "the configuration gives group {} the serial number {}: the one it had when the application started stays",
                group.label,
                group.serial
            );
        }
        own.store(Arc::new(Group { serial: Serial(slot.serial), ..group.clone() }));
        if slot.gone.swap(false, Ordering::AcqRel) {
            changed.push(slot.clone());
        }
        met.push(slot.id);
    }
    for slot in slots.iter().filter(|slot| matches!(slot.behind, Behind::Group(_)) && !met.contains(&slot.id))
    {
        process.lose_a_slot();
        if !slot.gone.swap(true, Ordering::AcqRel) {
            changed.push(slot.clone());
        }
    }
    changed.extend(fresh.into_iter().map(|group| add(process, conf, || behind_group(group))));
    changed
}

/// The slot of a group of a configuration.
fn slot_of<'a>(slots: &'a [Arc<Slot>], group: &Group) -> Option<(&'a Arc<Slot>, &'a ArcSwap<Group>)> {
    let groups = || {
        slots.iter().filter_map(|slot| match &slot.behind {
            Behind::Group(own) => Some((slot, own)),
            Behind::Partition(..) => None,
        })
    };
    let same_label = |own: &ArcSwap<Group>| own.load().label.eq_ignore_ascii_case(&group.label);
    let by_serial = groups().find(|(slot, _)| slot.serial == group.serial.0);
    by_serial.or_else(|| groups().find(|(_, own)| same_label(own)))
}

/// The number behind all others. The first one is the configuration's to say, and stays for the life of the process.
fn next_id(slots: &[Arc<Slot>], conf: &Configuration) -> SlotId {
    slots.last().map_or(SlotId(conf.first_slot), |last| SlotId(last.id.0.saturating_add(1)))
}

/// Adds a slot behind all others.
fn add(process: &Process, conf: &Configuration, behind: impl Fn() -> Behind) -> Arc<Slot> {
    let mut added = None;
    process.slots.rcu(|slots| {
        let mut slots: Vec<Arc<Slot>> = slots.to_vec();
        let slot = Slot::new(next_id(&slots, conf), behind());
        added = Some(slot.clone());
        slots.push(slot);
        slots
    });
    added.expect("the function given to rcu runs at least once")
}

/// Adds the partitions that the servers have told of and that no slot shows yet, at the end and for good.
fn discover(process: &Process) -> Result<()> {
    let conf = process.configuration();
    let shows = |conf: &&Arc<Configuration>| conf.net_client && !conf.ha_only && !conf.servers.is_empty();
    let Some(conf) = conf.as_ref().filter(shows) else { return Ok(()) };
    let seen = process.world().partitions(process)?;
    process.slots.rcu(|slots| {
        let mut slots: Vec<Arc<Slot>> = slots.to_vec();
        for (serial, label) in &seen {
            let shown = |slot: &Arc<Slot>| matches!(slot.behind, Behind::Partition(own, _) if own == *serial);
            if !slots.iter().any(shown) {
                slots.push(Slot::new(next_id(&slots, conf), Behind::Partition(*serial, Some(label.clone()))));
            }
        }
        slots
    });
    Ok(())
}

/// C_GetSlotList. Group slots hold their token while they are in the configuration; a partition's slot does while a link to
/// it is up.
pub(crate) fn list(process: &Process, token_present: bool) -> Result<Vec<SlotId>> {
    process.world().upkeep(process);
    discover(process)?;
    let mut told = Vec::new();
    for slot in process.slots.load().iter() {
        if !token_present || is_present(process, slot)? {
            told.push(slot.id);
        }
    }
    Ok(told)
}

fn is_present(process: &Process, slot: &Arc<Slot>) -> Result<bool> {
    match slot.behind {
        Behind::Group(_) => Ok(!slot.is_gone()),
        Behind::Partition(..) => {
            let status = process.world().group(process, slot)?.status();
            Ok(status.members.iter().any(|member| !matches!(member.state, MemberState::Down(_))))
        }
    }
}

/// C_GetSlotInfo.
pub(crate) fn slot_info(process: &Process, id: SlotId) -> Result<SlotInfo> {
    let slot = process.slot(id)?;
    let (description, removable) = match &slot.behind {
        Behind::Group(group) => (format!("HA group {}", group.load().label), 0),
        Behind::Partition(serial, _) => (format!("Partition {serial}"), slot_flags::REMOVABLE_DEVICE),
    };
    let present = if is_present(process, &slot)? { slot_flags::TOKEN_PRESENT } else { 0 };
    Ok(SlotInfo {
        description: cut(description, 64),
        manufacturer: MANUFACTURER.to_owned(),
        flags: removable | present,
        hardware: LIBRARY_VERSION,
        firmware: LIBRARY_VERSION,
    })
}

/// C_GetTokenInfo: from the configuration and from what members have said before; nothing is sent.
pub(crate) fn token_info(process: &Process, id: SlotId) -> Result<TokenInfo> {
    let slot = process.slot(id)?;
    let present = is_present(process, &slot)?;
    if !present {
        return Err(Rv::TOKEN_NOT_PRESENT.into());
    }
    let status = process.world().group(process, &slot)?.status();
    let reports = || status.members.iter().filter_map(|member| member.report.as_ref());
    let standing = if reports().next().is_some() {
        status.token_flags
    } else {
        token_flags::TOKEN_INITIALIZED | token_flags::USER_PIN_INITIALIZED
    };
    let flags = token_flags::RNG | token_flags::LOGIN_REQUIRED | standing;
    let told = match slot.behind {
        Behind::Group(_) => status.manifest.as_ref().map(|manifest| manifest.label.clone()),
        Behind::Partition(..) => reports().next().map(|report| report.label.clone()),
    };
    let sessions = slot.sessions.load(Ordering::Acquire);
    Ok(TokenInfo {
        label: cut(told.filter(|label| !label.is_empty()).unwrap_or_else(|| slot.label()), 32),
        manufacturer: MANUFACTURER.to_owned(),
        model: match slot.behind {
            Behind::Group(_) => "Hatoki HA".to_owned(),
            Behind::Partition(..) => "Hatoki partition".to_owned(),
        },
        serial: serial_text(slot.serial),
        flags,
        sessions_max: 0,
        sessions,
        rw_sessions_max: 0,
        rw_sessions: sessions.saturating_sub(slot.read_only_sessions.load(Ordering::Acquire)),
        pin_bytes_max: reports().map(|report| u64::from(report.pin_bytes_max)).min().unwrap_or(PIN_BYTES.0),
        pin_bytes_min: reports().map(|report| u64::from(report.pin_bytes_min)).max().unwrap_or(PIN_BYTES.1),
        hardware: LIBRARY_VERSION,
        firmware: LIBRARY_VERSION,
        utc_time: " ".repeat(16),
    })
}

/// CA_GetHAState.
pub(crate) fn ha_state(process: &Process, id: SlotId) -> Result<HaState> {
    let slot = process.slot(id)?;
    if matches!(slot.behind, Behind::Partition(..)) {
        return Err(Rv::SLOT_ID_INVALID.into());
    }
    let status = process.world().group(process, &slot)?.status();
    let rv = |member: &MemberStatus| match &member.state {
        MemberState::Up | MemberState::Unverified if !member.suspect => Rv::OK,
        MemberState::Up | MemberState::Unverified | MemberState::Recovering => Rv::DEVICE_ERROR,
        MemberState::Down(_) => Rv::TOKEN_NOT_PRESENT,
    };
    let members = status.members.iter().map(|member| (member.id.0, rv(member))).collect();
    Ok(HaState { serial: slot.serial, members })
}

/// C_GetMechanismList: asks once, then stays as it is for the process (RULES 2.10). When no member answers within the
/// bound the list is what this release can do.
pub(crate) fn mechanisms(process: &Process, id: SlotId) -> Result<Arc<Vec<MechanismFacts>>> {
    let slot = process.slot(id)?;
    if let Some(known) = slot.mechanisms.load_full() {
        return Ok(known);
    }
    let answer =
        Asking { process, slot: &slot }.any(Call::Status(Status { mechanisms: true, seen: Vec::new() }));
    let facts: Vec<MechanismFacts> = match answer {
        Ok(Answer::Status(mut status)) => std::mem::take(&mut status.mechanisms)
            .into_iter()
            .filter_map(|told| {
                let row = mechanisms::row_of(MechanismType(told.number))?;
                Some(MechanismFacts { flags: told.flags | done_by_the_device(row), ..told })
            })
            .collect(),
        Ok(_) => return Err(strange("Status")),
        Err(Error::Outage(text) | Error::Undecided(text) | Error::Late(text)) => {
            tracing::warn!("no member told its mechanisms, this release's own list stands in: {text}");
            mechanisms::ROWS.iter().map(own_facts).collect()
        }
        Err(error) => return Err(error),
    };
    slot.mechanisms.compare_and_swap(&None::<Arc<Vec<MechanismFacts>>>, Some(Arc::new(facts)));
    Ok(slot.mechanisms.load_full().unwrap_or_default())
}

/// C_GetMechanismInfo.
pub(crate) fn mechanism_info(
    process: &Process,
    id: SlotId,
    mechanism: MechanismType,
) -> Result<MechanismFacts> {
    let facts = mechanisms(process, id)?;
    let found = facts.iter().find(|facts| facts.number == mechanism.0);
    Ok(found.ok_or(Rv::MECHANISM_INVALID)?.clone())
}

/// `CKF_HW` for what the members do: to the application they are the device, and clients look for the flag (OpenSC's
/// `pkcs11-tool --test` signs only with such mechanisms). Digests run in the process (RULES 1.8).
///
/// DEVIATION: docs/adr/0006-deviations.md, item 6: members are software, the flag says "done by the device".
fn done_by_the_device(row: &mechanisms::Row) -> u64 {
    if row.key_types.is_empty() { 0 } else { HW }
}

fn own_facts(row: &mechanisms::Row) -> MechanismFacts {
    MechanismFacts {
        number: row.mechanism.0,
        key_size_min: row.key_size_min,
        key_size_max: row.key_size_max,
        flags: row.flags | done_by_the_device(row),
    }
}

/// The last sixteen digits of a serial number.
fn serial_text(serial: u64) -> String {
    let digits = serial.to_string();
    digits[digits.len().saturating_sub(16)..].to_owned()
}

/// A text of at most so many bytes, cut at the boundary of a character.
fn cut(mut text: String, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_serials_to_their_last_digits() {
        assert_eq!(cut("aé".to_owned(), 2), "a");
        assert_eq!(cut("aé".to_owned(), 3), "aé");
        assert_eq!(serial_text(12_345_678_901_234_567_890), "5678901234567890");
        assert_eq!(serial_text(7), "7");
    }
}
