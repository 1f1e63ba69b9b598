//! The command line of `hsm`, in the vendor's words where it has them.
use std::env;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Where `hsmd` puts its socket under the packaged configuration.
const DEFAULT_SOCKET: &str = "/var/lib/hatoki/admin.sock";

/// Operates an appliance of Hatoki: asks the hsmd of this host.
///
/// Long options may be written with one dash and in any case, as in the vendor's shell. Exit codes: 0 done, 1 not
/// done, 2 not understood.
#[derive(Parser)]
#[command(name = "hsm", version)]
pub(super) struct Arguments {
    /// The socket of hsmd (admin_socket in hsmd.toml); else $HSM_SOCKET, else /var/lib/hatoki/admin.sock
    #[arg(long, global = true)]
    socket: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) group: Group,
}

impl Arguments {
    pub(super) fn socket(&self) -> PathBuf {
        let from_env = || env::var_os("HSM_SOCKET").map(PathBuf::from);
        self.socket.clone().or_else(from_env).unwrap_or_else(|| DEFAULT_SOCKET.into())
    }
}

#[derive(Subcommand)]
pub(super) enum Group {
    /// Name the appliance and make its first domain
    Init {
        /// Label of the appliance
        #[arg(long)]
        label: String,
        /// Name of the domain to make
        #[arg(long, default_value = "default")]
        domain: String,
        /// Make no domain: it will be imported from another appliance
        #[arg(long = "noDomain", conflicts_with = "domain")]
        no_domain: bool,
    },
    /// Show the appliance
    Show,
    /// Domains: the secrets that members of a group share
    #[command(subcommand)]
    Domain(Domain),
    /// Partitions
    #[command(subcommand)]
    Partition(Partition),
    /// Clients
    #[command(subcommand)]
    Client(Client),
    /// The network listener
    #[command(subcommand)]
    Ntls(Ntls),
}

#[derive(Subcommand)]
pub(super) enum Domain {
    /// On the appliance that lacks a domain: ask for it
    ExportRequest {
        /// Name of the domain
        #[arg(long, default_value = "default")]
        domain: String,
        /// The request file to make
        #[arg(long)]
        out: PathBuf,
    },
    /// On an appliance that has the domain: seal it to a request
    Export {
        /// Name of the domain
        #[arg(long, default_value = "default")]
        domain: String,
        /// The request file of the other appliance
        #[arg(long)]
        request: PathBuf,
        /// The export file to make
        #[arg(long)]
        out: PathBuf,
        /// Export only if the request has this fingerprint, as the other appliance showed it
        #[arg(long)]
        fingerprint: Option<String>,
    },
    /// On the appliance that asked: take the domain
    Import {
        /// The export file
        #[arg(long = "in")]
        file: PathBuf,
    },
    /// Show fingerprints: equal ones mean equal secrets
    Fingerprint {
        /// Name of the domain; all without it
        #[arg(long)]
        domain: Option<String>,
    },
}

#[derive(Subcommand)]
pub(super) enum Partition {
    /// Make a partition; PINs not given come from $HSM_SO_PIN and $HSM_CO_PIN or are asked for
    Create {
        /// Label of the partition, at most 32 bytes
        #[arg(long)]
        partition: String,
        /// Name of its domain
        #[arg(long, default_value = "default")]
        domain: String,
        /// First PIN of the security officer (others on this host may see arguments: better leave it out)
        #[arg(long = "soPin", allow_hyphen_values = true)]
        so_pin: Option<String>,
        /// First PIN of the Crypto Officer (others on this host may see arguments: better leave it out)
        #[arg(long = "coPin", allow_hyphen_values = true)]
        co_pin: Option<String>,
    },
    /// List partitions
    List,
    /// Show one partition
    Show {
        /// Label or serial number
        #[arg(long)]
        partition: String,
    },
}

#[derive(Subcommand)]
pub(super) enum Client {
    /// Admit a client by its certificate
    Register {
        /// Name of the client here
        #[arg(long)]
        client: String,
        /// Its certificate, PEM
        #[arg(long)]
        cert: PathBuf,
    },
    /// List clients
    List,
    /// Let a client use a partition
    #[command(name = "assignPartition")]
    AssignPartition {
        /// Name of the client
        #[arg(long)]
        client: String,
        /// Label or serial number of the partition
        #[arg(long)]
        partition: String,
    },
}

#[derive(Subcommand)]
pub(super) enum Ntls {
    /// Show addresses, certificate and links
    Show,
}
