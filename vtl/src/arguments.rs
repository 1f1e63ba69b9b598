//! The verbs and options, after [`normalise`](crate::normalise) has turned the vendor's spellings into long options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use client::conf::Serial;
use zeroize::Zeroizing;

/// Client tool: certificates, servers, HA groups. Options are also understood with a single dash (-serialNum), verbs
/// in any case and with a leading dash. Exit codes: 0 done, 1 failed, 2 usage.
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
    /// Makes the client's key and certificate and names them in the configuration.
    #[command(name = "createCert")]
    CreateCert(CreateCert),
    /// Adds an appliance and trusts its certificate.
    #[command(name = "addServer")]
    AddServer(AddServer),
    /// Lists the appliances of the configuration.
    #[command(name = "listServers")]
    ListServers,
    /// Connects to every appliance and lists the partitions that this client may use.
    #[command(name = "verify")]
    Verify,
    /// HA groups.
    #[command(name = "haAdmin", subcommand_required = true)]
    HaAdmin {
        #[command(subcommand)]
        verb: HaVerb,
    },
}

/// What is to be done with HA groups.
#[derive(Subcommand)]
pub(crate) enum HaVerb {
    /// Makes an HA group of one partition; the partition becomes the group's home.
    #[command(name = "newGroup")]
    NewGroup(NewGroup),
    /// Adds an empty partition of the same domain to a group.
    #[command(name = "addMember")]
    AddMember(AddMember),
    /// Shows the groups, their members, and whether the members hold the same.
    #[command(name = "show")]
    Show,
}

#[derive(Args)]
pub(crate) struct CreateCert {
    /// Name of this client: the common name of the certificate and the name of its files.
    #[arg(long, short = 'n', value_name = "NAME")]
    pub(crate) n: String,
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
pub(crate) struct NewGroup {
    /// Serial number of the first member, as `vtl verify` shows it.
    #[arg(long = "serialNum", value_name = "SERIAL")]
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
    #[arg(long = "serialNum", value_name = "SERIAL")]
    pub(crate) serial: Serial,
    #[command(flatten)]
    pub(crate) secret: Secret,
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

    use super::*;
    use crate::normalise::normalised;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(normalised(line.split(' ').map(Into::into)))
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
