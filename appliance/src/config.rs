//! `hsmd.toml`: the settings of the server. Every setting but `data_dir` has a default; an unknown or wrong one is
//! refused with file, line and column.
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use partition::Settings;
use serde::Deserialize;
use spec::MechanismType;
use toml::Spanned;

use crate::error::Error;

/// The least bound of memory: a request of the greatest size fits.
const BYTES_MIN: u64 = 32 << 20;

/// Where the 32-byte root key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootKeySource {
    /// A file of mode 0600, made at the first start.
    File(PathBuf),
    /// An environment variable that holds 64 hexadecimal digits.
    Env(String),
    /// A systemd credential (`$CREDENTIALS_DIRECTORY/NAME`) that holds 64 hexadecimal digits or 32 bytes.
    Credential(String),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder that holds everything the server keeps.
    pub data_dir: PathBuf,
    /// Addresses and ports to listen on.
    pub listen: Vec<SocketAddr>,
    /// The Unix socket of `hsm`.
    pub admin_socket: PathBuf,
    /// Where the root key is.
    pub root_key: RootKeySource,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Threads for links.
    pub workers: usize,
    /// Threads for private RSA operations and generation, and as many more for PIN checks.
    pub crypto_threads: usize,
    /// Most links at once. A client may have as many of them as it leaves free.
    pub links_max: usize,
    /// Most links of one client at once.
    pub links_per_client_max: usize,
    /// Most handshakes in progress at once: connections that have not yet said Hello.
    pub handshakes_max: usize,
    /// Most requests outstanding on one link.
    pub window: u32,
    /// Most bytes that one link's waiting requests and unsent replies hold.
    pub link_bytes_max: usize,
    /// Most bytes that those of all links together hold.
    pub bytes_max: usize,
    /// A link without traffic for so many seconds is closed; 0 keeps it for ever.
    pub idle_seconds: u64,
    /// The TLS handshake and Hello must be done in so many seconds.
    pub handshake_seconds: u64,
    /// How long a stop waits for running requests, in seconds.
    pub stop_seconds: u64,
    /// Shortest PIN of new partitions in bytes.
    pub pin_bytes_min: u32,
    /// Memory of one PIN check in KiB.
    pub argon2_memory_kib: u32,
    /// Passes of one PIN check.
    pub argon2_passes: u32,
    /// Lanes of one PIN check.
    pub argon2_lanes: u32,
    /// Longest delay between tries after wrong PINs, in milliseconds.
    pub retry_delay_ms_max: u64,
    /// What partitions may not do.
    pub limits: LimitsOf,
    /// How this appliance keeps step with its peers.
    pub peers: PeerSettings,
}

/// What the partitions of this appliance may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsOf {
    /// What holds for each partition that has nothing of its own.
    pub all: Quota,
    /// Mechanisms that no partition here offers.
    pub mechanisms_off: Vec<MechanismType>,
    /// What holds for one partition, by its label.
    pub partition: BTreeMap<String, Limits>,
}

/// What one partition may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Mechanisms that it does not offer besides.
    pub mechanisms_off: Vec<MechanismType>,
    /// Its quota and policy.
    pub quota: Quota,
}

/// How much a partition may hold, and policies of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Most objects.
    pub objects_max: u64,
    /// Most bytes of objects.
    pub bytes_max: u64,
    /// Policy `hash in member` (RULES 1.4).
    pub hash_in_member: bool,
}

impl LimitsOf {
    /// The mechanisms that the partition of this label does not offer.
    pub fn mechanisms_off(&self, label: &str) -> Vec<MechanismType> {
        let own = self.partition.get(label).into_iter().flat_map(|own| &own.mechanisms_off);
        self.mechanisms_off.iter().chain(own).copied().collect()
    }

    /// The quota and policies of the partition of this label.
    pub fn quota(&self, label: &str) -> Quota {
        self.partition.get(label).map_or(self.all, |own| own.quota)
    }
}

/// How an appliance keeps step with its peers (HA 4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// How long a start waits for peers to tell where they last saw the partitions here (HA 1.5), in milliseconds.
    pub start_wait_ms: u64,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data_dir: PathBuf,
    listen: Option<Vec<Spanned<String>>>,
    admin_socket: Option<PathBuf>,
    root_key: Option<Spanned<String>>,
    log_level: Option<Spanned<String>>,
    log_format: Option<LogFormat>,
    workers: Option<Spanned<u64>>,
    crypto_threads: Option<Spanned<u64>>,
    links_max: Option<Spanned<u64>>,
    links_per_client_max: Option<Spanned<u64>>,
    handshakes_max: Option<Spanned<u64>>,
    window: Option<Spanned<u64>>,
    link_bytes_max: Option<Spanned<u64>>,
    bytes_max: Option<Spanned<u64>>,
    idle_seconds: Option<Spanned<u64>>,
    handshake_seconds: Option<Spanned<u64>>,
    stop_seconds: Option<Spanned<u64>>,
    pin_bytes_min: Option<Spanned<u64>>,
    argon2_memory_kib: Option<Spanned<u64>>,
    argon2_passes: Option<Spanned<u64>>,
    argon2_lanes: Option<Spanned<u64>>,
    retry_delay_ms_max: Option<Spanned<u64>>,
    limits: Option<RawLimits>,
    peers: Option<RawPeers>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    #[serde(default)]
    mechanisms_off: Vec<Spanned<String>>,
    objects_max: Option<Spanned<u64>>,
    bytes_max: Option<Spanned<u64>>,
    hash_in_member: Option<bool>,
    #[serde(default)]
    partition: BTreeMap<String, RawPartition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPartition {
    #[serde(default)]
    mechanisms_off: Vec<Spanned<String>>,
    objects_max: Option<Spanned<u64>>,
    bytes_max: Option<Spanned<u64>>,
    hash_in_member: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPeers {
    start_wait_ms: Option<Spanned<u64>>,
}

impl Config {
    /// Reads and checks a file. Relative paths are relative to the file's folder.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or a setting is missing, unknown or out of its range.
    pub fn load(file: &Path) -> Result<Config, Error> {
        let text = fs::read_to_string(file).map_err(|error| {
            Error::environment(format!(
                "{}: wanted a configuration file, found: {error}; give one with --config",
                file.display()
            ))
        })?;
        Self::parse(&text, file)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Config, Error> {
        let place = Place { text, file };
        let raw: Raw = toml::from_str(text).map_err(|error| {
            place.error(error.span().map_or(0, |span| span.start), error.message().trim_end().to_owned())
        })?;
        let base = file.parent().unwrap_or(Path::new(""));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let data_dir = base.join(&raw.data_dir);
        Ok(Config {
            listen: place.listen(raw.listen)?,
            admin_socket: raw
                .admin_socket
                .map_or_else(|| data_dir.join("admin.sock"), |path| base.join(path)),
            root_key: place.root_key(raw.root_key, base, &data_dir)?,
            log_level: place.log_level(raw.log_level)?,
            log_format: raw.log_format.unwrap_or(LogFormat::Text),
            workers: place.count("workers", raw.workers, cores, 1, 1024)?,
            crypto_threads: place.count("crypto_threads", raw.crypto_threads, cores, 1, 1024)?,
            links_max: place.count("links_max", raw.links_max, 4096, 1, 1 << 20)?,
            links_per_client_max: place.count(
                "links_per_client_max",
                raw.links_per_client_max,
                1 << 20,
                1,
                1 << 20,
            )?,
            handshakes_max: place.count("handshakes_max", raw.handshakes_max, 256, 1, 65_536)?,
            window: place.small("window", raw.window, 256, 1, 65_536)?,
            link_bytes_max: place.bytes("link_bytes_max", raw.link_bytes_max, 64 << 20)?,
            bytes_max: place.bytes("bytes_max", raw.bytes_max, 1 << 30)?,
            idle_seconds: place.number("idle_seconds", raw.idle_seconds, 0, 0, 1 << 31)?,
            handshake_seconds: place.number("handshake_seconds", raw.handshake_seconds, 10, 1, 600)?,
            stop_seconds: place.number("stop_seconds", raw.stop_seconds, 10, 0, 600)?,
            pin_bytes_min: place.small("pin_bytes_min", raw.pin_bytes_min, 7, 4, 255)?,
            argon2_memory_kib: place.small(
                "argon2_memory_kib",
                raw.argon2_memory_kib,
                19_456,
                64,
                1 << 22,
            )?,
            argon2_passes: place.small("argon2_passes", raw.argon2_passes, 2, 1, 1000)?,
            argon2_lanes: place.small("argon2_lanes", raw.argon2_lanes, 1, 1, 16)?,
            retry_delay_ms_max: place.number(
                "retry_delay_ms_max",
                raw.retry_delay_ms_max,
                300_000,
                0,
                86_400_000,
            )?,
            limits: place.limits(raw.limits.unwrap_or_default())?,
            peers: PeerSettings {
                start_wait_ms: place.number(
                    "start_wait_ms",
                    raw.peers.unwrap_or_default().start_wait_ms,
                    2_000,
                    0,
                    60_000,
                )?,
            },
            data_dir,
        })
    }
}

/// Where in which file an error is.
struct Place<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Place<'_> {
    fn error(&self, offset: usize, text: String) -> Error {
        let before = self.text.get(..offset.min(self.text.len())).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
        Error::Refused(format!("{}:{line}:{column}: {text}", self.file.display()))
    }

    fn number(
        &self,
        name: &str,
        value: Option<Spanned<u64>>,
        default: u64,
        min: u64,
        max: u64,
    ) -> Result<u64, Error> {
        let Some(value) = value else { return Ok(default) };
        let found = *value.get_ref();
        if (min..=max).contains(&found) {
            return Ok(found);
        }
        Err(self.error(
            value.span().start,
            format!("{name}: wanted a number from {min} to {max}, found {found}; leave it out for {default}"),
        ))
    }

    fn small(
        &self,
        name: &str,
        value: Option<Spanned<u64>>,
        default: u32,
        min: u32,
        max: u32,
    ) -> Result<u32, Error> {
        let number = self.number(name, value, default.into(), min.into(), max.into())?;
        Ok(u32::try_from(number).expect("the bound max is a u32"))
    }

    fn count(
        &self,
        name: &str,
        value: Option<Spanned<u64>>,
        default: usize,
        min: u32,
        max: u32,
    ) -> Result<usize, Error> {
        let default = u32::try_from(default).unwrap_or(max).clamp(min, max);
        Ok(usize::try_from(self.small(name, value, default, min, max)?).expect("usize holds 32 bits"))
    }

    /// A bound in bytes: it has room for one request of the greatest size.
    fn bytes(&self, name: &str, value: Option<Spanned<u64>>, default: u64) -> Result<usize, Error> {
        let number = self.number(name, value, default, BYTES_MIN, 1 << 40)?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn limits(&self, raw: RawLimits) -> Result<LimitsOf, Error> {
        let Settings { objects_max, bytes_max, hash_in_member, .. } = Settings::default();
        let usual = Quota { objects_max, bytes_max, hash_in_member };
        let all = self.quota(usual, raw.objects_max, raw.bytes_max, raw.hash_in_member)?;
        let mut partition = BTreeMap::new();
        for (label, own) in raw.partition {
            let quota = self.quota(all, own.objects_max, own.bytes_max, own.hash_in_member)?;
            partition.insert(label, Limits { mechanisms_off: self.mechanisms(&own.mechanisms_off)?, quota });
        }
        Ok(LimitsOf { all, mechanisms_off: self.mechanisms(&raw.mechanisms_off)?, partition })
    }

    fn quota(
        &self,
        usual: Quota,
        objects_max: Option<Spanned<u64>>,
        bytes_max: Option<Spanned<u64>>,
        hash_in_member: Option<bool>,
    ) -> Result<Quota, Error> {
        Ok(Quota {
            objects_max: self.number("objects_max", objects_max, usual.objects_max, 1, 1 << 32)?,
            bytes_max: self.number("bytes_max", bytes_max, usual.bytes_max, 1 << 20, 1 << 40)?,
            hash_in_member: hash_in_member.unwrap_or(usual.hash_in_member),
        })
    }

    fn mechanisms(&self, names: &[Spanned<String>]) -> Result<Vec<MechanismType>, Error> {
        let mechanism = |name: &Spanned<String>| {
            MechanismType::from_name(name.get_ref()).ok_or_else(|| {
                let text = format!(
                    "mechanisms_off: wanted the standard's name of a mechanism as \"CKM_ECDSA\", found {:?}",
                    name.get_ref()
                );
                self.error(name.span().start, text)
            })
        };
        names.iter().map(mechanism).collect()
    }

    fn listen(&self, value: Option<Vec<Spanned<String>>>) -> Result<Vec<SocketAddr>, Error> {
        let Some(list) = value else { return Ok(vec![SocketAddr::from(([0, 0, 0, 0], 1792))]) };
        list.iter()
            .map(|item| {
                item.get_ref().parse().map_err(|_| {
                    let text = format!(
                        "listen: wanted an address and port as \"192.0.2.1:1792\" or \"[2001:db8::1]:1792\", found {:?}",
                        item.get_ref()
                    );
                    self.error(item.span().start, text)
                })
            })
            .collect()
    }

    fn root_key(
        &self,
        value: Option<Spanned<String>>,
        base: &Path,
        data_dir: &Path,
    ) -> Result<RootKeySource, Error> {
        let Some(value) = value else { return Ok(RootKeySource::File(data_dir.join("root.key"))) };
        let text = value.get_ref();
        let name = |name: &str| {
            let good =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if good && name != ".." && name != "." { Some(name.to_owned()) } else { None }
        };
        let source = if let Some(rest) = text.strip_prefix("env:") {
            name(rest).map(RootKeySource::Env)
        } else if let Some(rest) = text.strip_prefix("credential:") {
            name(rest).map(RootKeySource::Credential)
        } else if text.is_empty() {
            None
        } else {
            Some(RootKeySource::File(base.join(text)))
        };
        source.ok_or_else(|| {
            let text =
                format!("root_key: wanted a path, \"env:NAME\" or \"credential:NAME\", found {text:?}");
            self.error(value.span().start, text)
        })
    }

    fn log_level(&self, value: Option<Spanned<String>>) -> Result<String, Error> {
        let Some(value) = value else { return Ok("info".to_owned()) };
        let level = value.get_ref().to_ascii_lowercase();
        if ["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
            return Ok(level);
        }
        let text =
            format!("log_level: wanted error, warn, info, debug or trace, found {:?}", value.get_ref());
        Err(self.error(value.span().start, text))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(text, Path::new("/etc/hatoki/hsmd.toml"))
    }

    #[test]
    fn every_setting_but_the_data_folder_has_a_default() {
        let config = parse("data_dir = \"/var/lib/hatoki\"").unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/hatoki"));
        assert_eq!(config.listen, vec!["0.0.0.0:1792".parse().unwrap()]);
        assert_eq!(config.admin_socket, Path::new("/var/lib/hatoki/admin.sock"));
        assert_eq!(config.root_key, RootKeySource::File("/var/lib/hatoki/root.key".into()));
        assert_eq!((config.window, config.pin_bytes_min, config.idle_seconds), (256, 7, 0));
        let processors = std::thread::available_parallelism().unwrap().get();
        assert_eq!((config.workers, config.crypto_threads), (processors, processors));
        let error = parse("listen = []").unwrap_err().to_string();
        assert!(error.contains("data_dir"), "{error}");
    }

    /// Of a machine with several, a thread may be left with one: so no fixed number can pass.
    #[test]
    fn threads_are_as_many_as_the_processors_that_may_be_used() {
        let all = sched_getaffinity(None).unwrap();
        for used in [1, all.count().min(2)] {
            let mut some = CpuSet::new();
            (0..CpuSet::MAX_CPU)
                .filter(|one| all.is_set(*one))
                .take(used as usize)
                .for_each(|one| some.set(one));
            // Of the calling thread alone.
            let found = std::thread::spawn(move || {
                sched_setaffinity(None, &some).unwrap();
                let processors = std::thread::available_parallelism().unwrap().get();
                (parse("data_dir = \"d\"").unwrap(), processors)
            });
            let (config, processors) = found.join().unwrap();
            assert!(processors <= used as usize);
            assert_eq!((config.workers, config.crypto_threads), (processors, processors));
        }
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let config = parse("data_dir = \"data\"\nroot_key = \"keys/root\"").unwrap();
        assert_eq!(config.data_dir, Path::new("/etc/hatoki/data"));
        assert_eq!(config.root_key, RootKeySource::File("/etc/hatoki/keys/root".into()));
    }

    #[test]
    fn root_keys_come_from_file_environment_or_credential() {
        let source =
            |text: &str| parse(&format!("data_dir = \"d\"\nroot_key = {text:?}")).map(|c| c.root_key);
        assert_eq!(source("env:HSMD_ROOT").unwrap(), RootKeySource::Env("HSMD_ROOT".into()));
        assert_eq!(source("credential:root.key").unwrap(), RootKeySource::Credential("root.key".into()));
        for bad in ["env:", "credential:../etc/shadow", "credential:..", ""] {
            assert!(source(bad).unwrap_err().to_string().contains(":2:"), "{bad}");
        }
    }

    #[test]
    fn mechanisms_are_switched_off_for_all_partitions_or_for_one() {
        let text = "data_dir = \"d\"\n[limits]\nmechanisms_off = [\"CKM_RSA_PKCS\"]\n[limits.partition.par1]\n\
                    mechanisms_off = [\"CKM_ECDSA\"]";
        let limits = parse(text).unwrap().limits;
        assert_eq!(limits.mechanisms_off("par0"), [MechanismType::RSA_PKCS]);
        assert_eq!(limits.mechanisms_off("par1"), [MechanismType::RSA_PKCS, MechanismType::ECDSA]);
    }

    #[test]
    fn quotas_and_policies_hold_for_all_partitions_but_for_what_one_has_of_its_own() {
        let usual = parse("data_dir = \"d\"").unwrap().limits.quota("any");
        assert_eq!((usual.objects_max, usual.bytes_max, usual.hash_in_member), (1_000_000, 1 << 30, false));
        let text = "data_dir = \"d\"\n[limits]\nobjects_max = 5\nhash_in_member = true\n\
            [limits.partition.par1]\nbytes_max = 2000000\nhash_in_member = false";
        let limits = parse(text).unwrap().limits;
        assert_eq!(limits.quota("par0"), Quota { objects_max: 5, bytes_max: 1 << 30, hash_in_member: true });
        assert_eq!(
            limits.quota("par1"),
            Quota { objects_max: 5, bytes_max: 2_000_000, hash_in_member: false }
        );
    }

    #[test]
    fn wrong_settings_are_named_with_file_line_and_column() {
        let table = [
            ("window = 0", ":2:10: window: wanted a number from 1 to 65536, found 0"),
            ("window = \"many\"", ":2:10: "),
            ("windows = 3", ":2:1: unknown field `windows`"),
            ("listen = [\"localhost\"]", ":2:11: listen: wanted an address and port"),
            (
                "log_level = \"loud\"",
                ":2:13: log_level: wanted error, warn, info, debug or trace, found \"loud\"",
            ),
            ("log_format = \"xml\"", ":2:14: unknown variant `xml`, expected `text` or `json`"),
            ("pin_bytes_min = 3", ":2:17: pin_bytes_min: wanted a number from 4 to 255, found 3"),
            ("link_bytes_max = 1000", ":2:18: link_bytes_max: wanted a number from 33554432 to"),
            ("[limits]\nmechanisms_off = [\"CKM_X\"]", ":3:19: mechanisms_off: wanted the standard's name"),
            ("limits = { mechanism_off = [] }", "unknown field `mechanism_off`"),
            ("[limits]\nobjects_max = 0", ":3:15: objects_max: wanted a number from 1"),
            ("[limits.partition.p]\nbytes_max = 9", ":3:13: bytes_max: wanted a number from 1048576"),
            ("peers = { start_wait_ms = 60001 }", ":2:27: start_wait_ms: wanted a number from 0 to 60000"),
            ("window = -1", ":2:10: "),
            ("window =", ":2:"),
        ];
        for (line, wanted) in table {
            let error = parse(&format!("data_dir = \"d\"\n{line}\n")).unwrap_err().to_string();
            assert!(error.starts_with("/etc/hatoki/hsmd.toml:"), "{error}");
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }

    /// `hsmd.toml.example` names every setting with its default.
    #[test]
    fn the_example_names_every_setting_with_its_default() {
        let example = include_str!("../hsmd.toml.example");
        let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
        let full: Vec<&str> = example
            .lines()
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .filter(|line| is_setting(line))
            .collect();
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let as_shown = Config { workers: 2, crypto_threads: 2, ..parse(example).unwrap() };
        assert_eq!(parse(&full.join("\n")).unwrap(), as_shown);
        assert_eq!(parse(example).unwrap().workers, cores);
        let mut known = parse("data_dir = \"d\"\nno_such = 1").unwrap_err().to_string();
        known = known.split_once("expected one of ").unwrap().1.to_owned();
        for name in known.split(", ").map(|name| name.trim_matches('`')) {
            assert!(
                full.iter().any(|line| line.starts_with(&format!("{name} = "))),
                "{name} is not in the example"
            );
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/nonexistent/hsmd.toml")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/hsmd.toml") && error.contains("--config"), "{error}");
    }
}
