//! The one table of every option the module reads. It drives validation, defaults, the documentation and
//! `Chrystoki.conf.example`; a second table names the vendor's keys that are known and not used.
//!
//! DEVIATION: docs/adr/0006-deviations.md, item 8: failover_on_deactivation has no effect, and an attempt of reconnAtt is a
//! time in which many are made.

use super::document::index_of;

/// What happens when a value is outside of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The file is refused: `C_Initialize` answers CKR_GENERAL_ERROR (RULES 2.13).
    Refused,
    /// One warning is logged and the default is used.
    DefaultUsed,
    /// Cannot be seen in the file; whoever uses the value fails and the log names it.
    OnUse,
}

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text up to a number of bytes.
    Text {
        /// Greatest length.
        bytes_max: usize,
    },
    /// Path of a file or folder; a relative one is relative to the folder of the configuration.
    Path,
    /// `off`, or a path as above.
    PathOrOff,
    /// Decimal number.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// 0 or 1, or in words `off` or `on`.
    Flag,
    /// One word of a list, compared without case.
    Choice(&'static [&'static str]),
    /// `available`, `majority`, `all`, or a number from 1 (RULES 2.18, HA 2.2).
    Copies,
    /// Serial number: decimal, at most 64 bits.
    Serial,
    /// Serial numbers separated by commas.
    Serials,
}

/// One option.
#[derive(Debug)]
pub struct Row {
    /// Section it stands in.
    pub section: &'static str,
    /// Key; `NN` stands for two digits from 00, a key of `<label>` for the label of any group.
    pub key: &'static str,
    /// Form and range.
    pub kind: Kind,
    /// What a number counts; empty for what has no unit.
    pub unit: &'static str,
    /// The value when the key is absent or empty; empty for none.
    pub default: &'static str,
    /// The value shown in the example file.
    pub example: &'static str,
    /// What a value outside of the range does.
    pub wrong: Wrong,
    /// What it decides.
    pub meaning: &'static str,
}

/// Makes one named row each and [`TABLE`] of all of them, so that no row can be missing from the table.
macro_rules! rows {
    ($($name:ident = $section:literal $key:literal $kind:expr, unit $unit:literal, default $default:literal,
       example $example:literal, $wrong:ident, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub static $name: Row = Row {
                section: $section, key: $key, kind: $kind, unit: $unit, default: $default, example: $example,
                wrong: Wrong::$wrong, meaning: $meaning,
            };
        )*
        /// Every option that is read, in the order of the example file.
        pub static TABLE: &[&Row] = &[$(&$name),*];
    };
}

const INTEGER_MS: Kind = Kind::Integer { min: 100, max: 86_400_000 };

rows! {
    DEFAULT_TIMEOUT_MS = "Luna" "DefaultTimeOut" INTEGER_MS, unit "ms", default "500000", example "500000", DefaultUsed,
        "Longest time one call may take, with all failovers in it; KeypairGenTimeOut bounds those that generate keys.";
    KEYPAIR_TIMEOUT_MS = "Luna" "KeypairGenTimeOut" INTEGER_MS, unit "ms", default "2700000", example "2700000",
        DefaultUsed, "Longest time the generation of a key or a key pair may take; see DefaultTimeOut.";
    NET_CLIENT = "LunaSA Client" "NetClient" Kind::Flag, unit "", default "1", example "1", DefaultUsed,
        "1 uses the servers and groups of this file; 0 gives no slots.";
    RECEIVE_TIMEOUT_MS = "LunaSA Client" "ReceiveTimeout" Kind::Integer { min: 100, max: 600_000 }, unit "ms",
        default "20000", example "20000", DefaultUsed,
        "Ceiling of the time without any answer after which a server is given up; probes are much faster.";
    TCP_KEEP_ALIVE = "LunaSA Client" "TCPKeepAlive" Kind::Flag, unit "", default "1", example "1", DefaultUsed,
        "1 lets the system probe idle connections, so that firewalls keep them.";
    CLIENT_PRIVATE_KEY = "LunaSA Client" "ClientPrivKeyFile" Kind::Path, unit "", default "",
        example "cert/client/app01Key.pem", OnUse,
        "PEM file of the client's private key, written by `vtl createCert`. Without it no server can be reached.";
    CLIENT_CERTIFICATE = "LunaSA Client" "ClientCertFile" Kind::Path, unit "", default "",
        example "cert/client/app01.pem", OnUse,
        "PEM file of the client's certificate, to be registered on every appliance.";
    SERVER_CA = "LunaSA Client" "ServerCAFile" Kind::Path, unit "", default "cert/server/CAFile.pem",
        example "cert/server/CAFile.pem", OnUse,
        "PEM file of the trusted server certificates (pinned) and of the authorities that sign server certificates.";
    SERVER_NAME = "LunaSA Client" "ServerNameNN" Kind::Text { bytes_max: 253 }, unit "", default "",
        example "hsm-a.example.net", Refused, "Host name or IP address of an appliance; NN from 00 to 99.";
    SERVER_PORT = "LunaSA Client" "ServerPortNN" Kind::Integer { min: 1, max: 65_535 }, unit "TCP port", default "1792",
        example "1792", Refused, "Port of that appliance.";
    GROUP_LABEL = "VirtualToken" "VirtualTokenNNLabel" Kind::Text { bytes_max: 32 }, unit "", default "",
        example "prodha", Refused,
        "Label of an HA group. It stands in for the label of the group's manifest until a member has answered.";
    GROUP_SERIAL = "VirtualToken" "VirtualTokenNNSN" Kind::Serial, unit "", default "", example "11000000000001",
        Refused, "Serial number of the virtual token. Absent: the digit 1 before the serial of the first member.";
    GROUP_MEMBERS = "VirtualToken" "VirtualTokenNNMembers" Kind::Serials, unit "", default "",
        example "1000000000001, 1000000000002, 1000000000003", Refused,
        "Serial numbers of the partitions of the group, the preferred one first.";
    ACTIVE_RECOVERY = "VirtualToken" "VirtualTokenActiveRecovery" Kind::Choice(&["activeBasic", "activeEnhanced"]),
        unit "", default "activeEnhanced", example "activeEnhanced", DefaultUsed,
        "activeEnhanced: sessions, logins, handles and operations outlive the loss of all members. activeBasic: once a call has found no member in its time, all calls of the group answer CKR_DEVICE_ERROR until C_Finalize and C_Initialize, or `vtl haAdmin recover`.";
    SYNCHRONIZE = "HASynchronize" "<label>" Kind::Flag, unit "", default "1", example "1", Refused,
        "For each group by its label: 1 replicates and repairs, 0 does neither (the partitions are filled by other means).";
    HA_ONLY = "HAConfiguration" "HAOnly" Kind::Flag, unit "", default "1", example "1", DefaultUsed,
        "1 shows applications the HA slots alone, 0 the member partitions behind them too. The default holds when there is a group.";
    RECOVERY_ATTEMPTS = "HAConfiguration" "reconnAtt" Kind::Integer { min: -1, max: 500 }, unit "attempts",
        default "-1", example "-1", DefaultUsed,
        "Attempts to take a lost member back, each of AutoReconnectInterval: -1 for ever, 0 never. A member that was given up waits for `vtl haAdmin recover` or the next C_Initialize.";
    RECOVERY_INTERVAL_S = "HAConfiguration" "AutoReconnectInterval" Kind::Integer { min: 1, max: 1200 }, unit "s",
        default "60", example "60", DefaultUsed,
        "Length of one attempt of reconnAtt. Within it the module tries again and again, every 50 ms to 5 s; a member that returns is not kept waiting.";
    LOG_STATUS = "HAConfiguration" "haLogStatus" Kind::Choice(&["enabled", "disabled"]), unit "", default "enabled",
        example "enabled", DefaultUsed, "Whether the HA log is written, once haLogPath names a folder. LogPath has the same events as fields.";
    LOG_FOLDER = "HAConfiguration" "haLogPath" Kind::Path, unit "", default "", example "", OnUse,
        "Folder of the HA log haErrorLog.txt: one line for each member lost, tried, taken back, added or dropped, with date (UTC), process and group. Empty: none.";
    LOG_BYTES_MAX = "HAConfiguration" "logLen" Kind::Integer { min: 1, max: 0x7FFF_FFFF }, unit "bytes",
        default "262144", example "262144", DefaultUsed,
        "Length at which haErrorLog.txt is renamed, with the time in its name, and begun anew. The last lines may go beyond it.";
    STANDBY_MEMBERS = "HAConfiguration" "<label>StandbyMembers" Kind::Serials, unit "", default "", example "", Refused,
        "For each group by its label: members that this host uses only when no other can be, besides those that the group's manifest calls standby.";
    FAILOVER_ON_DEACTIVATION = "HAConfiguration" "failover_on_deactivation" Kind::Flag, unit "", default "1", example "1", DefaultUsed,
        "Without effect, so that the vendor's files load: there it makes the client leave a partition whose login has ended. Here a login is a ticket that every member of the group accepts, also one that was restarted; a member that cannot serve (its partition taken from this client, restarting, being repaired) is passed over at once, with 0 too; and a login ends on all members together.";
    PROBE_TIMEOUT_MS = "HAConfiguration" "ProbeTimeout" Kind::Integer { min: 100, max: 600_000 }, unit "ms",
        default "1000", example "1000", DefaultUsed,
        "Time a probe may stay unanswered before a member's links are given up. Requests leave a silent member long before.";
    ONE_BASE_SLOT_ID = "Presentation" "OneBaseSlotId" Kind::Flag, unit "", default "0", example "0", DefaultUsed,
        "Number of the first slot: 0, or 1. Taken over by the next C_Initialize.";
    MINIMUM_COPIES = "Hatoki" "MinimumCopies" Kind::Copies, unit "members", default "2", example "2", Refused,
        "Members that must hold a new object before its creation succeeds: available, majority, all, or a number. A group of one needs 1.";
    OUTAGE_WAIT_MS = "Hatoki" "OutageWaitMs" Kind::Integer { min: 0, max: 86_400_000 }, unit "ms", default "20000",
        example "20000", Refused,
        "Time a call waits for a member when all are gone, before it answers CKR_DEVICE_ERROR.";
    LINKS_PER_MEMBER = "Hatoki" "LinksPerMember" Kind::Integer { min: 1, max: 4 }, unit "connections", default "2",
        example "2", Refused, "Connections of one process to one server.";
    POLICY = "Hatoki" "Policy" Kind::Choice(&["least-busy", "round-robin", "primary-first"]), unit "",
        default "least-busy", example "least-busy", Refused,
        "How a member is chosen for a request: by outstanding requests, in turn, or the first of VirtualTokenNNMembers that can take it. Weights of the manifest count for the first two.";
    BUFFER_MIB = "Hatoki" "BufferMiB" Kind::Integer { min: 16, max: 65_536 }, unit "MiB", default "256", example "256",
        Refused, "Memory of one process for data of operations that must be gathered before they are sent.";
    LOCAL_VERIFY = "Hatoki" "LocalVerify" Kind::Flag, unit "", default "1", example "1", Refused,
        "1 verifies and encrypts with public keys in the process, on what a member said of the key within the last second; 0 (or off) on a member each time.";
    LOCAL_RANDOM = "Hatoki" "LocalRandom" Kind::Flag, unit "", default "1", example "1", Refused,
        "1 serves C_GenerateRandom from buffers in the process, which members fill ahead and the system's generator is mixed into; 0 (or off) asks a member each time.";
    LOG_LEVEL = "Hatoki" "LogLevel" Kind::Choice(&["off", "error", "warn", "info", "debug"]), unit "", default "warn",
        example "warn", Refused, "Least serious message that is logged.";
    LOG_PATH = "Hatoki" "LogPath" Kind::Path, unit "", default "", example "", OnUse,
        "File the log is appended to. Empty: standard error.";
    STATS_PATH = "Hatoki" "StatsPath" Kind::PathOrOff, unit "", default "", example "", OnUse,
        "Folder of the metrics pages that `vtl stats` reads: of mode 0700 and of the application's user. Empty: hatoki-<uid> in $XDG_RUNTIME_DIR or in /tmp. off: no pages. Taken over by the next C_Initialize.";
}

/// What stands in a section and a key.
#[derive(Debug, Clone, Copy)]
pub enum Known {
    /// An option of [`TABLE`].
    Read(&'static Row),
    /// A key of the vendor that is known and changes nothing here; with what to do about that, where an application would
    /// notice.
    Unused(Option<&'static str>),
    /// A key that no table names, in a section that does.
    UnknownKey,
    /// A section that no table names.
    UnknownSection,
}

/// Looks a key up. `labels` are the labels of the file's groups, for the keys that contain one.
pub fn find(section: &str, key: &str, labels: &[&str]) -> Known {
    let row = TABLE.iter().find(|row| row.section.eq_ignore_ascii_case(section) && row.fits(key, labels));
    if let Some(row) = row {
        return Known::Read(row);
    }
    match UNUSED.iter().find(|unused| unused.0.eq_ignore_ascii_case(section)) {
        Some((_, keys)) if keys.iter().any(|pattern| unused_fits(pattern, key)) => {
            let fits = |one: &&(&str, &str, &str)| {
                one.0.eq_ignore_ascii_case(section) && one.1.eq_ignore_ascii_case(key)
            };
            Known::Unused(MISSED.iter().find(fits).map(|missed| missed.2))
        }
        Some(_) => Known::UnknownKey,
        None if TABLE.iter().any(|row| row.section.eq_ignore_ascii_case(section)) => Known::UnknownKey,
        None => Known::UnknownSection,
    }
}

impl Row {
    /// Whether a key of this row's section belongs to this row.
    pub fn fits(&self, key: &str, labels: &[&str]) -> bool {
        match self.key.strip_prefix("<label>") {
            Some(suffix) => labels.iter().any(|label| {
                key.split_at_checked(label.len()).is_some_and(|(start, end)| {
                    start.eq_ignore_ascii_case(label) && end.eq_ignore_ascii_case(suffix)
                })
            }),
            None => self.key.eq_ignore_ascii_case(key) || index_of(self.key, key).is_some(),
        }
    }

    /// The range in words, for error texts and documents.
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Text { bytes_max } => format!("text of at most {bytes_max} bytes"),
            Kind::Path => "a path, absolute or relative to the folder of this file".to_owned(),
            Kind::PathOrOff => "off, or a path, absolute or relative to the folder of this file".to_owned(),
            Kind::Integer { min, max } => format!("a number from {min} to {max}"),
            Kind::Flag => "0 or 1".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Copies => "available, majority, all, or a number from 1 to 100".to_owned(),
            Kind::Serial => "a decimal serial number of at most 64 bits".to_owned(),
            Kind::Serials => "decimal serial numbers separated by commas, each once, at most 100".to_owned(),
        }
    }

    /// What a wrong value does, in words.
    pub fn wrong_effect(&self) -> &'static str {
        match self.wrong {
            Wrong::Refused => "the file is refused",
            Wrong::DefaultUsed => "a warning, and the default is used",
            Wrong::OnUse => "noticed on use, and the log names it",
        }
    }
}

fn unused_fits(pattern: &str, key: &str) -> bool {
    pattern == "*" || pattern.eq_ignore_ascii_case(key) || index_of(pattern, key).is_some()
}

/// Sections and keys of the vendor that are known and not read; `*` stands for every key of its section.
static UNUSED: &[(&str, &[&str])] = &[
    ("Chrystoki2", &["LibUNIX64", "LibUNIX", "LibNT", "LibNT32"]),
    ("Luna", &["PEDTimeout1", "PEDTimeout2", "PEDTimeout3", "CloningCommandTimeOut", "CommandTimeOutPedSet"]),
    ("LunaSA Client", &["SSLConfigFile", "ServerHtlNN", "HtlDir"]),
    ("VirtualToken", &[]),
    ("HASynchronize", &[]),
    ("HARecovery", &["*"]),
    ("HAConfiguration", &["recoveryMode"]),
    (
        "Misc",
        &[
            "PE1746Enabled",
            "ToolsDir",
            "PartitionPolicyTemplatePath",
            "ProtectedAuthenticationPathFlagStatus",
            "LoginAllowedOnFMEnabledHSMs",
            "Apache",
            "AppIdMajor",
            "AppIdMinor",
            "PluginModuleDir",
            "CopyRSAPublicValuesFromPrivateTemplate",
            "RSAKeyGenMechRemap",
            "FunctionBindLevel",
            "ValidateHost",
        ],
    ),
    ("CardReader", &["RemoteCommand", "LunaG5Slots"]),
    ("Presentation", &["ShowEmptySlots", "ShowAdminTokens", "ShowUserSlots"]),
    (
        "Secure Trusted Channel",
        &[
            "ClientTokenLib",
            "ClientTokenLib32",
            "SoftTokenDir",
            "ClientIdentitiesDir",
            "PartitionIdentitiesDir",
        ],
    ),
    ("CkLog2", &["*"]),
    ("CkLog3", &["*"]),
    ("GemEngine", &["*"]),
    ("EngineLunaCA3", &["*"]),
    ("Engine", &["*"]),
    ("REST", &["*"]),
    ("XTC", &["*"]),
    ("Session", &["AutoCleanUpDisabled"]),
    ("Toggles", &["legacy_memory_rep", "lunacm_cv_ha_ui"]),
];

/// Keys out of [`UNUSED`] whose effect an application would miss: section, key, what to do.
static MISSED: &[(&str, &str, &str)] = &[(
    "Presentation",
    "ShowUserSlots",
    "slots have the numbers that `vtl listSlots` shows; let the applications name their tokens by label or serial number, \
     or give them these numbers, and take the key out",
)];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_in_one_table_only() {
        for (index, row) in TABLE.iter().enumerate() {
            let same = |other: &&&Row| {
                other.section.eq_ignore_ascii_case(row.section) && other.key.eq_ignore_ascii_case(row.key)
            };
            assert_eq!(TABLE.iter().filter(same).count(), 1, "row {index}: {} {}", row.section, row.key);
        }
    }

    #[test]
    fn every_missed_key_is_one_of_the_unused() {
        for (section, key, _) in MISSED {
            assert!(matches!(find(section, key, &[]), Known::Unused(Some(_))), "{section} {key}");
        }
    }

    #[test]
    fn keys_are_found_without_case_and_by_two_digits() {
        let read = |section, key| matches!(find(section, key, &["prod ha"]), Known::Read(_));
        assert!(read("lunasa client", "SERVERNAME07"));
        assert!(!read("LunaSA Client", "ServerName7"));
        assert!(!read("LunaSA Client", "ServerName007"));
        assert!(read("HASynchronize", "PROD ha"));
        assert!(!read("HASynchronize", "other"));
        assert!(read("HAConfiguration", "prod haStandbyMembers"));
        assert!(matches!(find("Luna", "CommandTimeoutPedSet", &[]), Known::Unused(None)));
        assert!(matches!(find("LunaSA Client", "ServerHtl00", &[]), Known::Unused(None)));
        assert!(matches!(find("presentation", "showUserSlots", &[]), Known::Unused(Some(_))));
        assert!(matches!(find("HASynchronize", "other", &[]), Known::UnknownKey));
        assert!(matches!(find("Lunar", "DefaultTimeOut", &[]), Known::UnknownSection));
    }
}
