//! The verbs about certificates and peers.
use ntls::certificate::DAYS;

use super::protocol::{PeerShown, SysconfShown};
use crate::appliance::Appliance;
use crate::book::PeerRow;
use crate::error::Error;
use crate::expiry;

/// The server's certificate, a prepared one, and everybody else's.
pub(super) fn shown(appliance: &Appliance) -> SysconfShown {
    let mut all = expiry::all(appliance);
    SysconfShown {
        server: all.remove(0),
        certificate: appliance.identity.certificate_path().display().to_string(),
        next: appliance.identity.next().map(|next| expiry::shown("this server, next", next.der())),
        next_certificate: appliance.identity.next_path().display().to_string(),
        request: (appliance.identity.is_asked() && appliance.identity.next().is_none())
            .then(|| appliance.identity.request_path().display().to_string()),
        others: all,
    }
}

/// What ends soon.
pub(super) fn warnings(appliance: &Appliance) -> Vec<String> {
    let warnings = expiry::all(appliance).into_iter().map(|one| one.warning);
    warnings.filter(|warning| !warning.is_empty()).collect()
}

/// Makes a new server certificate and key, and puts them into service when that is wanted.
pub(super) fn regenerate(
    appliance: &Appliance,
    days: Option<u32>,
    activate_now: bool,
) -> Result<SysconfShown, Error> {
    let made = appliance.identity.prepare(days.unwrap_or(DAYS).max(1))?;
    tracing::info!(fingerprint = made.fingerprint_text(), "a new server certificate was prepared");
    if activate_now { activate(appliance, None) } else { Ok(shown(appliance)) }
}

/// Makes a new server key and a request for its certificate.
pub(super) fn ask(appliance: &Appliance) -> Result<SysconfShown, Error> {
    appliance.identity.ask()?;
    let request = appliance.identity.request_path().display().to_string();
    tracing::info!(request, "a new server key was made; its certificate is for an authority to issue");
    Ok(shown(appliance))
}

/// Puts the prepared certificate into service, or the one that an authority has issued for the prepared key.
pub(super) fn activate(appliance: &Appliance, issued: Option<String>) -> Result<SysconfShown, Error> {
    appliance.activate_certificate(issued.as_deref())?;
    let fingerprint = appliance.identity.current().certificate().fingerprint_text();
    tracing::info!(fingerprint, "a new server certificate is in service: new connections get it");
    Ok(shown(appliance))
}

/// One peer.
pub(super) fn peer(appliance: &Appliance, row: &PeerRow) -> PeerShown {
    PeerShown {
        peer: row.name.clone(),
        host: row.host.clone(),
        port: row.port,
        domain: row.domain.clone(),
        certificates: row.certificates.iter().map(|kept| expiry::shown(&row.name, &kept.der)).collect(),
        standing: appliance.peers.standing(row),
    }
}

/// All peers.
pub(super) fn peers(appliance: &Appliance) -> Vec<PeerShown> {
    appliance.registry.peers().iter().map(|row| peer(appliance, row)).collect()
}
