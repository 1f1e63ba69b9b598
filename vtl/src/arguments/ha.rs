//! The verbs and options behind `haAdmin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use client::conf::Serial;

use super::{Secret, Stats};

/// What is to be done with HA groups.
#[derive(Subcommand)]
pub(crate) enum HaVerb {
    /// Makes an HA group of one partition; the partition becomes the group's home.
    #[command(name = "newGroup", alias = "createGroup")]
    NewGroup(NewGroup),
    /// Adds an empty partition of the same domain to a group.
    #[command(name = "addMember")]
    AddMember(AddMember),
    /// Takes a partition out of a group; group serial and slot stay, also when the first member goes.
    #[command(name = "removeMember")]
    RemoveMember(RemoveMember),
    /// Puts an empty partition of the same domain in the place of a member, alive or lost: it gets the keys, role, weight
    /// and preference of the old one, which then leaves; group serial and slot stay.
    #[command(name = "replaceMember")]
    ReplaceMember(ReplaceMember),
    /// Takes a group out of this host's configuration; the partitions and their keys stay as they are.
    #[command(name = "deleteGroup")]
    DeleteGroup(DeleteGroup),
    /// Brings the members' contents together, or switches replication on and off for this host.
    #[command(name = "synchronize")]
    Synchronize(Synchronize),
    /// Compares what the members hold, without changing anything. Exit code 3 when they differ.
    #[command(name = "compare")]
    Compare(Compare),
    /// Repairs members that have come back, and lets running applications take lost members back.
    #[command(name = "recover")]
    Recover(Recover),
    /// How lost members are looked for; shows it when no option is given.
    #[command(name = "autoRecovery", aliases = ["retry", "interval", "recoveryMode"])]
    AutoRecovery(AutoRecovery),
    /// Whether applications see the HA slots alone; shows it when no option is given.
    #[command(name = "HAOnly")]
    HaOnly(HaOnly),
    /// Makes a member a standby: it serves when no active member lives.
    #[command(name = "addStandby")]
    AddStandby(Standby),
    /// Makes a standby a regular member again.
    #[command(name = "removeStandby")]
    RemoveStandby(Standby),
    /// The older spelling of addStandby and removeStandby.
    #[command(name = "standbyMembers")]
    StandbyMembers(StandbyMembers),
    /// The HA log of this host; shows its settings when no option is given.
    #[command(name = "haLog")]
    HaLog(HaLog),
    /// Shows the groups, their members, and whether the members hold the same.
    #[command(name = "show", alias = "listGroups")]
    Show,
    /// Makes a member the group's home, also when the old home is gone for good.
    #[command(name = "promote")]
    Promote(Promote),
    /// Gives a member no new work, so that its appliance can be stopped; it still takes every write.
    #[command(name = "drain")]
    Drain(Drain),
    /// Sets a member's share of the load.
    #[command(name = "weight")]
    Weight(Weight),
    /// How applications on this host choose a member for a request; shows it when no option is given.
    #[command(name = "policy")]
    Policy(Policy),
    /// The same as `vtl stats`.
    #[command(name = "stats")]
    Stats(Stats),
}

#[derive(Args)]
pub(crate) struct NewGroup {
    /// Serial number of the first member, as `vtl verify` shows it.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    /// Label of the group, at most 32 bytes.
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) label: String,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct AddMember {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Serial number of the partition, as `vtl verify` shows it.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct RemoveMember {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Serial number of the member.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct ReplaceMember {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Serial number of the member that leaves.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    /// Serial number of the partition that takes its place, as `vtl verify` shows it.
    #[arg(long = "newSerialNum", alias = "newSerialNumber", value_name = "SERIAL")]
    pub(crate) new: Serial,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct DeleteGroup {
    /// Label or serial number of the group.
    #[arg(long = "group", alias = "label", value_name = "GROUP")]
    pub(crate) group: String,
}

#[derive(Args)]
pub(crate) struct Synchronize {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Says what would be moved, and moves nothing. Exit code 3 when something would be.
    #[arg(long = "dry-run", alias = "dryRun")]
    pub(crate) dry_run: bool,
    /// Lets applications on this host replicate and repair (HASynchronize = 1); nothing is moved now.
    #[arg(long, conflicts_with_all = ["disable", "dry_run"])]
    pub(crate) enable: bool,
    /// Applications on this host neither replicate nor repair (HASynchronize = 0).
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) disable: bool,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct Compare {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
}

#[derive(Args)]
pub(crate) struct Recover {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct AutoRecovery {
    /// Attempts to reach a lost member: -1 for ever, 0 never, else 1 to 500 (reconnAtt).
    #[arg(long, alias = "count", value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i16).range(-1..=500))]
    pub(crate) retry: Option<i16>,
    /// Greatest time between two attempts in seconds, 1 to 1200 (AutoReconnectInterval).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=1200))]
    pub(crate) interval: Option<u16>,
    /// What the loss of all members means (VirtualTokenActiveRecovery): activeBasic ends the slot until the application begins
    /// anew or the group is recovered, with activeEnhanced everything goes on.
    #[arg(long, value_name = "MODE", ignore_case = true)]
    pub(crate) mode: Option<RecoveryModeWord>,
    /// Shows the settings.
    #[arg(long, conflicts_with_all = ["retry", "interval", "mode"])]
    pub(crate) show: bool,
}

/// The vendor's words.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RecoveryModeWord {
    #[value(name = "activeBasic")]
    ActiveBasic,
    #[value(name = "activeEnhanced")]
    ActiveEnhanced,
}

#[derive(Args)]
pub(crate) struct HaOnly {
    /// Applications see the HA slots alone.
    #[arg(long, conflicts_with_all = ["disable", "show"])]
    pub(crate) enable: bool,
    /// Applications see the member partitions too, behind the HA slots.
    #[arg(long, conflicts_with = "show")]
    pub(crate) disable: bool,
    /// Shows which holds.
    #[arg(long)]
    pub(crate) show: bool,
}

#[derive(Args)]
pub(crate) struct Standby {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Serial number of the member.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    /// For every host, in the group's manifest (needs the password); otherwise for this host alone.
    #[arg(long)]
    pub(crate) everywhere: bool,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
#[group(id = "which", required = true, multiple = false, args = ["set", "regular"])]
pub(crate) struct StandbyMembers {
    /// Makes the member a standby.
    #[arg(long)]
    pub(crate) set: bool,
    /// Makes the standby a regular member again.
    #[arg(long)]
    pub(crate) regular: bool,
    #[command(flatten)]
    pub(crate) standby: Standby,
}

#[derive(Args)]
pub(crate) struct HaLog {
    /// Writes the log (haLogStatus).
    #[arg(long, conflicts_with = "disable")]
    pub(crate) enable: bool,
    /// Writes none.
    #[arg(long)]
    pub(crate) disable: bool,
    /// Folder of haErrorLog.txt (haLogPath); it must exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<PathBuf>,
    /// Bytes at which the file is renamed and begun anew (logLen).
    #[arg(long = "maxLength", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=0x7FFF_FFFF))]
    pub(crate) max_length: Option<u32>,
    /// Shows the settings.
    #[arg(long, conflicts_with_all = ["enable", "disable", "path", "max_length"])]
    pub(crate) show: bool,
}

#[derive(Args)]
pub(crate) struct Promote {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Serial number of the member that becomes the home.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct Drain {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Serial number of the member.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    /// Gives the member work again.
    #[arg(long)]
    pub(crate) end: bool,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct Weight {
    /// Label or serial number of the group.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) group: String,
    /// Serial number of the member.
    #[arg(long = "serialNum", alias = "serialNumber", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    /// Its share relative to the others; 100 is usual.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) weight: u32,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct Policy {
    /// The policy (Hatoki: Policy).
    #[arg(long, alias = "policy", value_name = "POLICY", ignore_case = true)]
    pub(crate) set: Option<PolicyWord>,
    /// Shows the policy.
    #[arg(long, conflicts_with = "set")]
    pub(crate) show: bool,
}

/// How a member is chosen.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PolicyWord {
    LeastBusy,
    RoundRobin,
    PrimaryFirst,
}
