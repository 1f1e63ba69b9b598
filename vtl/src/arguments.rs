//! The verbs and options, after [`normalise`](crate::normalise) has turned the vendor's spellings into long options.

mod ha;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use zeroize::Zeroizing;

pub(crate) use ha::{
    AddMember, AutoRecovery, Compare, DeleteGroup, Drain, HaLog, HaOnly, HaVerb, NewGroup, Policy,
    PolicyWord, Promote, Recover, RecoveryModeWord, RemoveMember, ReplaceMember, Standby, Synchronize,
    Weight,
};

/// Client tool: certificates, servers, HA groups. Options are also understood with a single dash (-serialNum), verbs
/// in any case and with a leading dash. Exit codes: 0 done, 1 failed, 2 usage, 3 the members' contents differ.
#[derive(Parser)]
#[command(name = "vtl", version, disable_help_subcommand = true, subcommand_required = true)]
pub(crate) struct Arguments {
    /// Prints JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Folder of Chrystoki.conf, instead of the one that ChrystokiConfigurationPath names, or /etc.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Makes the client's key and certificate. The first one is named in the configuration at once; a later one is
    /// made beside the one in use, and useCert changes over to it.
    #[command(name = "createCert")]
    CreateCert(CreateCert),
    /// Makes the client's key and a request for a certificate (PKCS #10), for an authority to sign.
    #[command(name = "createCSR")]
    CreateCsr(CreateCsr),
    /// Changes over to a certificate of createCert or createCSR once every appliance accepts it.
    #[command(name = "useCert")]
    UseCert(UseCert),
    /// Adds an appliance and trusts its certificate; for an appliance that is there, trusts one more certificate.
    #[command(name = "addServer")]
    AddServer(AddServer),
    /// Removes an appliance and the trust in its certificates.
    #[command(name = "deleteServer")]
    DeleteServer(DeleteServer),
    /// Gives an appliance's place to another one, or another certificate to the same one.
    #[command(name = "replaceServer")]
    ReplaceServer(ReplaceServer),
    /// Lists the appliances of the configuration.
    #[command(name = "listServers")]
    ListServers,
    /// Lists the slots as applications see them.
    #[command(name = "listSlots")]
    ListSlots,
    /// Connects to every appliance, lists the partitions that this client may use, and warns of certificates that end
    /// soon.
    #[command(name = "verify")]
    Verify,
    /// Shows the fingerprints of certificates: the client's own, or those of a file.
    #[command(name = "fingerprint")]
    Fingerprint(CertificateFile),
    /// Shows what certificates say: the client's own, or those of a file.
    #[command(name = "examineCert")]
    ExamineCert(CertificateFile),
    /// Shows what running processes count: rates, errors, latencies, hedges and failovers of each member and call.
    #[command(name = "stats")]
    Stats(Stats),
    /// HA groups.
    #[command(name = "haAdmin", alias = "haGroup", subcommand_required = true)]
    HaAdmin {
        #[command(subcommand)]
        verb: HaVerb,
    },
}

#[derive(Args)]
pub(crate) struct CreateCert {
    /// Name of this client: the common name of the certificate and the name of its files.
    #[arg(long, short = 'n', value_name = "NAME")]
    pub(crate) n: String,
    /// Days that the certificate lives, ten years when not given.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: Option<u32>,
}

#[derive(Args)]
pub(crate) struct CreateCsr {
    /// Name of this client: the common name of the request and the name of its files.
    #[arg(long, short = 'n', value_name = "NAME")]
    pub(crate) n: String,
    /// The common name when it is another than that of the files: a client that appliances know by its authority keeps it.
    #[arg(long = "commonName", value_name = "NAME")]
    pub(crate) common_name: Option<String>,
}

#[derive(Args)]
pub(crate) struct UseCert {
    /// Name that was given to createCert or createCSR.
    #[arg(long, short = 'n', value_name = "NAME")]
    pub(crate) n: String,
    /// The certificate that an authority has issued for a request of createCSR, in PEM form.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Changes over although an appliance cannot be asked, refuses the certificate or offers fewer partitions.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct AddServer {
    /// Host name or IP address of the appliance.
    #[arg(long, short = 'n', value_name = "HOST")]
    pub(crate) n: String,
    /// Certificate of the appliance (its server.pem), or of the authority that signed it, in PEM form.
    #[arg(long, short = 'c', value_name = "FILE")]
    pub(crate) c: PathBuf,
    /// TCP port.
    #[arg(long, short = 'p', value_name = "PORT", default_value_t = 1792, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) p: u16,
}

#[derive(Args)]
pub(crate) struct DeleteServer {
    /// Host name or IP address of the appliance.
    #[arg(long, short = 'n', value_name = "HOST")]
    pub(crate) n: String,
    /// TCP port; needed only when one host has several.
    #[arg(long, short = 'p', value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) p: Option<u16>,
}

#[derive(Args)]
pub(crate) struct ReplaceServer {
    /// Host name or IP address of the appliance whose place it is; that of -n when not given.
    #[arg(long, short = 'o', value_name = "HOST")]
    pub(crate) o: Option<String>,
    /// Host name or IP address that the place is given to.
    #[arg(long, short = 'n', value_name = "HOST")]
    pub(crate) n: String,
    /// Certificate of that appliance, or of the authority that signed it, in PEM form.
    #[arg(long, short = 'c', value_name = "FILE")]
    pub(crate) c: PathBuf,
    /// TCP port; the one of before when not given.
    #[arg(long, short = 'p', value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) p: Option<u16>,
}

#[derive(Args)]
pub(crate) struct CertificateFile {
    /// File of certificates in PEM form; without it the client's own and the trusted ones.
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) f: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Stats {
    /// Shows the numbers once, counted since each process began; otherwise the table is renewed. --json does so too.
    #[arg(long)]
    pub(crate) once: bool,
    /// Shows the numbers once, as text for Prometheus.
    #[arg(long, conflicts_with = "json")]
    pub(crate) prometheus: bool,
    /// Only this process.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Only this group, by label or serial number.
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Folder of the metrics pages (StatsPath), for those of another user.
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Seconds between two tables.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) interval: u16,
    /// Ends after so many tables.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[derive(Args)]
pub(crate) struct Secret {
    /// Crypto Officer's password. Other users of this host can see it in the list of processes; when it is not given
    /// it is taken from VTL_PASSWORD, asked for on a terminal, or read from standard input.
    #[arg(long = "password", value_name = "PASSWORD", value_parser = secret)]
    pub(crate) password: Option<Zeroizing<String>>,
}

fn secret(text: &str) -> Result<Zeroizing<String>, String> {
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use clap::CommandFactory;
    use client::conf::Serial;

    use super::*;
    use crate::normalise::normalised;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(normalised(Arguments::command(), line.split(' ').map(Into::into)))
    }

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_vendors_spellings_are_understood() {
        let line = "vtl haadmin -NEWGROUP -serialnum 1000000000001 -Label prodha -password -x=y";
        let Verb::HaAdmin { verb: HaVerb::NewGroup(new) } = parse(line).unwrap().verb else {
            panic!("{line}")
        };
        assert_eq!((new.serial, new.label.as_str()), (Serial(1_000_000_000_001), "prodha"));
        assert_eq!(new.secret.password.unwrap().as_str(), "-x=y");
        let line = "vtl -addserver -n hsm-a -c /tmp/s.pem -p 1793 -json";
        let arguments = parse(line).unwrap();
        let Verb::AddServer(add) = arguments.verb else { panic!("{line}") };
        assert!(arguments.json);
        assert_eq!((add.n.as_str(), add.p), ("hsm-a", 1793));
        let line = "vtl --config /srv/conf verify";
        assert_eq!(parse(line).unwrap().config, Some(PathBuf::from("/srv/conf")));
    }

    /// The vendor's verbs as its guides write them: with a dash (5.x), without, and as LunaCM's `hagroup`.
    #[test]
    fn every_verb_of_the_vendor_is_understood_in_old_and_new_spelling() {
        const LINES: &[&str] = &[
            "newGroup -serialNum 1000000000001 -label prodha -password x",
            "addMember -group prodha -serialNum 1000000000002 -password x",
            "removeMember -group prodha -serialNum 1000000000002 -password x",
            "deleteGroup -label prodha",
            "synchronize -group prodha -password x",
            "synchronize -group prodha -enable",
            "recover -group prodha -password x",
            "autoRecovery -retry -1 -interval 60",
            "HAOnly -enable",
            "HAOnly -disable",
            "HAOnly -show",
            "HALog -enable -path /var/log -maxLength 262144",
            "standbyMembers -set -group prodha -serialnum 1000000000002",
            "show",
        ];
        const LUNACM: &[&str] = &[
            "creategroup -serialnumber 1000000000001 -label prodha -password x",
            "addmember -serialnumber 1000000000002 -group prodha -password x",
            "removemember -serialnumber 1000000000002 -group prodha -password x",
            "deletegroup -label prodha",
            "listgroups",
            "synchronize -group prodha -enable",
            "recover -group prodha",
            "retry -count 500",
            "interval -interval 1200",
            "recoverymode -mode activeEnhanced",
            "haonly -show",
            "halog -enable -path /var/log -maxlength 262144",
            "addstandby -group prodha -serialnumber 1000000000002",
            "removestandby -group prodha -serialnumber 1000000000002",
        ];
        let dashed = LINES.iter().map(|line| format!("vtl haAdmin -{line}"));
        let plain = LINES.iter().map(|line| format!("vtl haAdmin {line}"));
        let lunacm = LUNACM.iter().map(|line| format!("vtl hagroup {line}"));
        let wrong: Vec<String> = dashed
            .chain(plain)
            .chain(lunacm)
            .filter_map(|line| parse(&line).err().map(|error| format!("{line}: {error}")))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_wrong_serial_and_a_wrong_port_are_usage_errors_that_say_what_was_wanted() {
        for (line, part) in [
            ("vtl haAdmin newGroup -serialNum 12x -label a -password b", "wanted a decimal serial number"),
            ("vtl addServer -n a -c b -p 0", "is not in 1..=65535"),
            ("vtl haAdmin newGroup -label a", "--serialNum"),
            ("vtl fly", "unrecognized subcommand"),
        ] {
            let error = parse(line).err().unwrap();
            assert!(error.use_stderr() && error.to_string().contains(part), "{line}: {error}");
        }
    }
}
