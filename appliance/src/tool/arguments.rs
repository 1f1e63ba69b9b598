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
    /// The server's certificate
    #[command(subcommand)]
    Sysconf(Sysconf),
    /// Peers: other appliances with members of the same groups, which keep step by themselves
    #[command(subcommand)]
    Peer(Peer),
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
    /// Let a recovering partition serve as it is, though no other member has been compared with it
    Adopt {
        /// Label or serial number
        #[arg(long)]
        partition: String,
    },
}

#[derive(Subcommand)]
pub(super) enum Client {
    /// Admit a client by its certificate, or by an authority that issues certificates with its name
    Register {
        /// Name of the client here; with -ca the common name of its certificates
        #[arg(long)]
        client: String,
        /// Its certificate, PEM
        #[arg(long, required_unless_present = "ca", conflicts_with = "ca")]
        cert: Option<PathBuf>,
        /// The certificate of the authority, PEM
        #[arg(long)]
        ca: Option<PathBuf>,
        /// The identity that the client has on the other appliances of its groups (`hsm client list`), when its first
        /// certificate there was another one
        #[arg(long, conflicts_with = "ca")]
        identity: Option<String>,
    },
    /// Add a certificate to a client: old and new hold until the old one is removed
    #[command(name = "addCertificate")]
    AddCertificate {
        /// Name of the client
        #[arg(long)]
        client: String,
        /// Its new certificate, PEM
        #[arg(long)]
        cert: PathBuf,
    },
    /// Take a certificate from a client; its links with that one end
    #[command(name = "removeCertificate")]
    RemoveCertificate {
        /// Name of the client
        #[arg(long)]
        client: String,
        /// SHA-256 of the certificate, as `hsm client list` shows it
        #[arg(long)]
        fingerprint: String,
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

#[derive(Subcommand)]
pub(super) enum Sysconf {
    /// Show the server's certificate, a prepared one, and when all certificates here end
    Show,
    /// Make a new server key and certificate beside those in service, and show the file to give to clients and peers
    #[command(name = "regenCert")]
    RegenCert {
        /// How many days it lives
        #[arg(long)]
        days: Option<u32>,
        /// Put it into service at once: clients that do not trust it yet cannot connect anew
        #[arg(long)]
        activate: bool,
        /// Make a key and a request (PKCS #10) instead, for an authority to sign
        #[arg(long, conflicts_with_all = ["days", "activate"])]
        csr: bool,
    },
    /// Put the prepared certificate into service: new connections get it, links that are up go on
    #[command(name = "activateCert")]
    ActivateCert {
        /// What the authority has issued for the request of `regenCert -csr`, PEM, with its chain
        #[arg(long)]
        cert: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum Peer {
    /// Register a peer, say where it is now, or add a certificate to it. Do the same on the peer with this appliance
    Add {
        /// Name of the peer here
        name: String,
        /// Where its hsmd listens
        #[arg(long)]
        host: String,
        /// The port
        #[arg(long, default_value_t = 1792)]
        port: u16,
        /// Its server certificate, PEM (server.pem of its data folder)
        #[arg(long)]
        certificate: PathBuf,
        /// The domain whose partitions it may repair
        #[arg(long, default_value = "default")]
        domain: String,
    },
    /// List peers
    List,
    /// Forget a peer, or one of its certificates
    Remove {
        /// Name of the peer
        name: String,
        /// SHA-256 of the one certificate to forget
        #[arg(long)]
        fingerprint: Option<String>,
    },
}
