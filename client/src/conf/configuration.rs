//! The configuration as typed values: what the driver, the tools and the log need to know, defaults filled in.

use std::fmt;
use std::path::{Path, PathBuf};

use super::document::{Document, Entry};
use super::error::Error;
use super::options;
use super::parse::parse;
use super::values::{self, Values};

/// Everything a `Chrystoki.conf` decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The file this was read from.
    pub file: PathBuf,
    /// `NetClient`: false means no slots at all.
    pub net_client: bool,
    /// The appliances, in the order of their numbers.
    pub servers: Vec<Server>,
    /// PEM file of the client's private key; None until `vtl createCert` has run.
    pub client_private_key: Option<PathBuf>,
    /// PEM file of the client's certificate; None until `vtl createCert` has run.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of the trusted server certificates and authorities.
    pub server_ca: PathBuf,
    /// `ReceiveTimeout`: ceiling of the wait for any answer of a server.
    pub receive_timeout_ms: u32,
    /// `TCPKeepAlive`.
    pub tcp_keep_alive: bool,
    /// The HA groups, in the order of their numbers.
    pub groups: Vec<Group>,
    /// Whether applications see the group slots alone (RULES 2.12).
    pub ha_only: bool,
    /// `OneBaseSlotId`: the number of the first slot, 0 or 1.
    pub first_slot: u64,
    /// The knobs of reconnection.
    pub recovery: Recovery,
    /// The HA log of the vendor's form.
    pub ha_log: HaLog,
    /// `failover_on_deactivation`; without effect: no login ends on one member alone, and a member that cannot serve is always
    /// passed over at once.
    pub failover_on_deactivation: bool,
    /// Time after which an unanswered probe takes a member out.
    pub probe_timeout_ms: u32,
    /// `DefaultTimeOut`: longest time of one call.
    pub default_timeout_ms: u32,
    /// `KeypairGenTimeOut`: longest time of a key generation.
    pub keypair_timeout_ms: u32,
    /// Our own section.
    pub hatoki: Hatoki,
    /// What was passed over, each once, to be logged by the caller.
    pub warnings: Vec<Warning>,
}

/// An appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// NN of `ServerNameNN`.
    pub index: u8,
    /// Host name or IP address.
    pub name: String,
    /// TCP port.
    pub port: u16,
}

/// Serial number of a partition or of a group: decimal, at most 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub u64);

/// An HA group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// NN of `VirtualTokenNNLabel`.
    pub index: u8,
    /// Label of the virtual token, at most 32 bytes.
    pub label: String,
    /// Serial number of the virtual token.
    pub serial: Serial,
    /// Member partitions, the preferred one first; never empty, no serial twice.
    pub members: Vec<Serial>,
    /// Members that this host uses only when no other lives, whatever the manifest says.
    pub standby: Vec<Serial>,
    /// False: no replication, no repair (HA 2.9).
    pub synchronize: bool,
}

/// How lost members are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// `reconnAtt`.
    pub attempts: Attempts,
    /// `AutoReconnectInterval`: how long one attempt lasts, in seconds.
    pub interval_s: u32,
    /// `VirtualTokenActiveRecovery`.
    pub mode: RecoveryMode,
}

/// Number of attempts to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempts {
    /// Never reconnect.
    None,
    /// So many for each lost member.
    Number(u16),
    /// For ever.
    Unlimited,
}

/// What the loss of all members means for a running application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryMode {
    /// `activeBasic`: the application has to call C_Finalize and C_Initialize.
    ActiveBasic,
    /// `activeEnhanced`: everything goes on when a member returns.
    ActiveEnhanced,
}

/// The settings of the HA log in the vendor's shape, beside the module's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaLog {
    /// `haLogStatus`.
    pub enabled: bool,
    /// Folder of `haErrorLog.txt`; None means no HA log.
    pub folder: Option<PathBuf>,
    /// Length at which the file is renamed and begun anew.
    pub bytes_max: u32,
}

/// Section `Hatoki` (RULES 2.18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hatoki {
    /// Members that must hold a new object (HA 2.2).
    pub minimum_copies: Copies,
    /// Wait for a member when all are gone.
    pub outage_wait_ms: u32,
    /// Greatest number of links to one member, 1 to 4.
    pub links_per_member: u8,
    /// How a member is chosen.
    pub policy: Policy,
    /// Memory for gathered data, of the whole process (RULES 1.6).
    pub buffer_mib: u32,
    /// Verify with public keys in the process.
    pub local_verify: bool,
    /// Random bytes from the process.
    pub local_random: bool,
    /// Least serious message that is logged.
    pub log_level: LogLevel,
    /// File of the log; None means standard error.
    pub log_path: Option<PathBuf>,
    /// Where metrics pages stand.
    pub stats: Stats,
}

/// Where the metrics pages of applications stand (`StatsPath`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stats {
    /// In the folder of the user ([`spec::stats::folder`]).
    Default,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere.
    Off,
}

/// Minimum copies of a new object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// As many members as answer, at least one.
    Available,
    /// More than half of the manifest's members.
    Majority,
    /// All of the manifest's members.
    All,
    /// A number from 1 to 100.
    Number(u8),
}

/// How a member is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The member with the fewest outstanding requests.
    LeastBusy,
    /// One after the other.
    RoundRobin,
    /// The first member of the file that can take the request.
    PrimaryFirst,
}

/// Least serious message that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Faults that an application noticed.
    Error,
    /// Faults that it did not notice.
    Warn,
    /// Changes of state.
    Info,
    /// Every call.
    Debug,
}

/// Something in the file that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: u32,
    /// What was passed over and what to do.
    pub text: String,
}

impl Configuration {
    /// Parses and checks the bytes of a file. `file` gives the folder of relative paths and the name in messages.
    /// Errs with [`Error::Malformed`] (RULES 2.13).
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Configuration, Error> {
        Configuration::from_document(&parse(bytes, file)?, file)
    }

    /// Checks a parsed document. Errs like [`Configuration::from_bytes`].
    pub fn from_document(document: &Document, file: &Path) -> Result<Configuration, Error> {
        let mut values = Values::check(document, file)?;
        let servers = servers(&mut values);
        let groups = groups(&mut values)?;
        Ok(Configuration {
            file: file.to_path_buf(),
            net_client: values.flag(&options::NET_CLIENT),
            servers,
            client_private_key: values.path(&options::CLIENT_PRIVATE_KEY),
            client_certificate: values.path(&options::CLIENT_CERTIFICATE),
            server_ca: values.path(&options::SERVER_CA).unwrap_or_default(),
            receive_timeout_ms: values.number(&options::RECEIVE_TIMEOUT_MS),
            tcp_keep_alive: values.flag(&options::TCP_KEEP_ALIVE),
            // DEVIATION: docs/adr/0006-deviations.md, item 1: HAOnly is 1 by default when there are groups (RULES 2.12).
            ha_only: !groups.is_empty() && values.flag(&options::HA_ONLY),
            groups,
            first_slot: values.number(&options::ONE_BASE_SLOT_ID),
            recovery: recovery(&values),
            ha_log: HaLog {
                enabled: values.choice(&options::LOG_STATUS) == 0,
                folder: values.path(&options::LOG_FOLDER),
                bytes_max: values.number(&options::LOG_BYTES_MAX),
            },
            failover_on_deactivation: values.flag(&options::FAILOVER_ON_DEACTIVATION),
            probe_timeout_ms: values.number(&options::PROBE_TIMEOUT_MS),
            default_timeout_ms: values.number(&options::DEFAULT_TIMEOUT_MS),
            keypair_timeout_ms: values.number(&options::KEYPAIR_TIMEOUT_MS),
            hatoki: hatoki(&values),
            warnings: values.warnings,
        })
    }

    /// The folder that holds the file.
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// The group with a label, compared without case as the keys that contain it are.
    pub fn group(&self, label: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.label.eq_ignore_ascii_case(label))
    }
}

fn servers(values: &mut Values<'_>) -> Vec<Server> {
    let names = values.indices(&options::SERVER_NAME);
    for index in values.indices(&options::SERVER_PORT) {
        if !names.contains(&index)
            && let Some(entry) = values.given_at(&options::SERVER_PORT, index)
        {
            let text =
                format!("{} without ServerName{index:02}, ignored; name the server or remove it", entry.key);
            values.warn(entry.key_at.line, text);
        }
    }
    let default_port = options::SERVER_PORT.default;
    let server = |index: u8| {
        let name = values.given_at(&options::SERVER_NAME, index)?.value.clone();
        let port =
            values.given_at(&options::SERVER_PORT, index).map_or(default_port, |entry| entry.value.as_str());
        Some(Server { index, name, port: port.parse().ok()? })
    };
    names.into_iter().filter_map(server).collect()
}

fn groups(values: &mut Values<'_>) -> Result<Vec<Group>, Error> {
    let mut groups: Vec<Group> = Vec::new();
    for index in values.indices(&options::GROUP_LABEL) {
        let Some(label) = values.given_at(&options::GROUP_LABEL, index) else {
            continue;
        };
        let group = group(values, index, label)?;
        if groups.iter().any(|other| other.label.eq_ignore_ascii_case(&group.label)) {
            return Err(values.fault(label, "a label that no other group has"));
        }
        if groups.iter().any(|other| other.serial == group.serial) {
            let entry = values.given_at(&options::GROUP_SERIAL, index).unwrap_or(label);
            return Err(values.fault(entry, "a group serial that no other group has"));
        }
        groups.push(group);
    }
    for row in [&options::GROUP_MEMBERS, &options::GROUP_SERIAL] {
        for index in values.indices(row) {
            if !groups.iter().any(|group| group.index == index)
                && let Some(entry) = values.given_at(row, index)
            {
                return Err(
                    values.fault(entry, format!("a VirtualToken{index:02}Label beside {}", entry.key))
                );
            }
        }
    }
    Ok(groups)
}

fn group(values: &Values<'_>, index: u8, label: &Entry) -> Result<Group, Error> {
    let no_members = || values.fault(label, format!("a VirtualToken{index:02}Members beside the label"));
    let entry = values.given_at(&options::GROUP_MEMBERS, index).ok_or_else(no_members)?;
    let members = values::serials(&entry.value).ok_or_else(no_members)?;
    let first = members.first().ok_or_else(no_members)?;
    let serial = match values.given_at(&options::GROUP_SERIAL, index) {
        Some(entry) => values::serial(&entry.value),
        None => Serial::of_group(*first),
    };
    let serial =
        serial.ok_or_else(|| values.fault(label, format!("a VirtualToken{index:02}SN beside the label")))?;
    let standby_key = options::STANDBY_MEMBERS.key.replace("<label>", &label.value);
    let mut standby = Vec::new();
    if let Some(entry) = values.given(options::STANDBY_MEMBERS.section, &standby_key) {
        standby = values::serials(&entry.value).unwrap_or_default();
        if !standby.iter().all(|serial| members.contains(serial)) {
            return Err(values.fault(entry, format!("serials out of VirtualToken{index:02}Members")));
        }
    }
    let synchronize = values
        .given(options::SYNCHRONIZE.section, &label.value)
        .map_or(options::SYNCHRONIZE.default, |entry| entry.value.as_str());
    Ok(Group { index, label: label.value.clone(), serial, members, standby, synchronize: synchronize == "1" })
}

fn recovery(values: &Values<'_>) -> Recovery {
    let attempts = match values.number::<i16>(&options::RECOVERY_ATTEMPTS) {
        0 => Attempts::None,
        number => u16::try_from(number).map_or(Attempts::Unlimited, Attempts::Number),
    };
    let modes = [RecoveryMode::ActiveBasic, RecoveryMode::ActiveEnhanced];
    Recovery {
        attempts,
        interval_s: values.number(&options::RECOVERY_INTERVAL_S),
        mode: modes[values.choice(&options::ACTIVE_RECOVERY)],
    }
}

fn hatoki(values: &Values<'_>) -> Hatoki {
    let policies = [Policy::LeastBusy, Policy::RoundRobin, Policy::PrimaryFirst];
    let levels = [LogLevel::Off, LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug];
    Hatoki {
        minimum_copies: values::copies(values.text(&options::MINIMUM_COPIES))
            .expect("the table's default and every checked value are numbers of copies"),
        outage_wait_ms: values.number(&options::OUTAGE_WAIT_MS),
        links_per_member: values.number(&options::LINKS_PER_MEMBER),
        policy: policies[values.choice(&options::POLICY)],
        buffer_mib: values.number(&options::BUFFER_MIB),
        local_verify: values.flag(&options::LOCAL_VERIFY),
        local_random: values.flag(&options::LOCAL_RANDOM),
        log_level: levels[values.choice(&options::LOG_LEVEL)],
        log_path: values.path(&options::LOG_PATH),
        stats: match values.path(&options::STATS_PATH) {
            None => Stats::Default,
            Some(_) if values.text(&options::STATS_PATH).eq_ignore_ascii_case("off") => Stats::Off,
            Some(folder) => Stats::Folder(folder),
        },
    }
}

impl Serial {
    /// The serial that the vendor's tools give to a group: the digit 1 before the serial of its first member. None
    /// when that does not fit 64 bits.
    pub fn of_group(first_member: Serial) -> Option<Serial> {
        format!("1{}", first_member.0).parse().ok().map(Serial)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

impl std::str::FromStr for Serial {
    type Err = String;

    /// Errs with a text that says what was wanted and found.
    fn from_str(text: &str) -> Result<Serial, String> {
        values::serial(text).filter(|_| !text.is_empty()).ok_or_else(|| {
            format!("wanted a decimal serial number of at most 64 bits, found `{}`", text.escape_debug())
        })
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Copies::Available => out.write_str("available"),
            Copies::Majority => out.write_str("majority"),
            Copies::All => out.write_str("all"),
            Copies::Number(number) => write!(out, "{number}"),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
