//! What a sealed thing is bound to besides its purpose (RULES 3.1): one type builds it, for sealing and for opening.
use spec::record::Ouid;

use super::Purpose;

/// The group and generation: bound into every seal (RULES 2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    /// The group's id.
    pub(crate) id: [u8; 16],
    /// The group's generation.
    pub(crate) generation: u64,
}

/// What the member expects, from the request and the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) group: Group,
    pub(crate) what: What<'a>,
}

/// The rest of the context, by purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What<'a> {
    /// A record on disk and between members.
    Record { ouid: Ouid, format: u32, maker: u64 },
    /// What `Make` made, for this client's `Store` with this tag only.
    Batch { client: &'a [u8; 32], tag: &'a [u8] },
    /// A session object: of this client's instance, and of its login when it is private (RULES 2.2).
    Blob { client: &'a [u8; 32], instance: &'a [u8; 32], login: Option<&'a [u8; 16]> },
    /// A multi-part operation between two parts.
    RunningState {
        client: &'a [u8; 32],
        instance: &'a [u8; 32],
        ouid: Ouid,
        function: u32,
        /// The canonical encoding of mechanism and parameters.
        mechanism: &'a [u8],
        /// The number of the part that takes it up.
        part: u64,
    },
    /// A proof of login (RULES 2.6).
    Ticket { client: &'a [u8; 32], instance: &'a [u8; 32], role: u8 },
    /// Verifiers and revocation number.
    Credentials,
    /// The manifest.
    Manifest,
}

impl What<'_> {
    pub(super) const fn purpose(&self) -> Purpose {
        match self {
            What::Record { .. } => Purpose::Record,
            What::Batch { .. } => Purpose::Batch,
            What::Blob { .. } => Purpose::Blob,
            What::RunningState { .. } => Purpose::RunningState,
            What::Ticket { .. } => Purpose::Ticket,
            What::Credentials => Purpose::Credentials,
            What::Manifest => Purpose::Manifest,
        }
    }
}

/// Appends a field with its length in front, so that no two contexts have one encoding.
fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl Context<'_> {
    /// Appends the canonical encoding.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        field(out, &self.group.id);
        field(out, &self.group.generation.to_be_bytes());
        match &self.what {
            What::Record { ouid, format, maker } => {
                field(out, &ouid.0);
                field(out, &format.to_be_bytes());
                field(out, &maker.to_be_bytes());
            }
            What::Batch { client, tag } => {
                field(out, *client);
                field(out, tag);
            }
            What::Blob { client, instance, login } => {
                field(out, *client);
                field(out, *instance);
                field(out, login.map_or(&[][..], |login| &login[..]));
            }
            What::RunningState { client, instance, ouid, function, mechanism, part } => {
                field(out, *client);
                field(out, *instance);
                field(out, &ouid.0);
                field(out, &function.to_be_bytes());
                field(out, mechanism);
                field(out, &part.to_be_bytes());
            }
            What::Ticket { client, instance, role } => {
                field(out, *client);
                field(out, *instance);
                field(out, &[*role]);
            }
            What::Credentials | What::Manifest => {}
        }
    }
}
