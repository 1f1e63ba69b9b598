//! Objects: made, copied, changed, read, searched, destroyed. Token objects live on the members; session objects are
//! sealed blobs here, searched by their readable attributes (RULES 2.2, 2.4).
use std::sync::atomic::Ordering;

use spec::flags::mechanism::{GENERATE, GENERATE_KEY_PAIR};
use spec::messages::{Answer, Call, GetAttributes, Make, MakeKind, MechanismMessage, SetAttributes};
use spec::numbers::UNAVAILABLE_INFORMATION;
use spec::{AttributeType, HandleObject, HandleSession, Mechanism, Ouid, Rv, Template};
use zeroize::Zeroizing;

use crate::asking::{Asking, naming, strange};
use crate::error::{Error, Result};
use crate::face::AttributeResult;
use crate::handles::{Handled, Home, ouid_of};
use crate::parameters;
use crate::process::Process;
use crate::sessions::Session;
use crate::slab::Entry;

/// A search: what was found at Init, and how much has been told.
pub(crate) struct Search {
    found: Vec<HandleObject>,
    told: usize,
}

fn asking<'a>(process: &'a Process, session: &'a Session) -> Asking<'a> {
    Asking { process, slot: &session.slot }
}

/// The object of a handle.
///
/// # Errors
/// CKR_OBJECT_HANDLE_INVALID.
fn object(process: &Process, session: &Session, handle: HandleObject) -> Result<Handled> {
    Ok(process.handles.look_up(session.slot.id, handle).ok_or(Rv::OBJECT_HANDLE_INVALID)?)
}

/// C_CreateObject (PKCS #11 v3.1, 5.7.1).
pub(crate) fn create(process: &Process, session: HandleSession, template: Template) -> Result<HandleObject> {
    let session = process.session(session)?;
    one(make(process, &session, MakeKind::CREATE, None, None, vec![template])?)
}

/// C_CopyObject (PKCS #11 v3.1, 5.7.2).
pub(crate) fn copy(
    process: &Process,
    session: HandleSession,
    source: HandleObject,
    template: Template,
) -> Result<HandleObject> {
    let session = process.session(session)?;
    let source = object(process, &session, source)?;
    one(make(process, &session, MakeKind::COPY, None, Some(&source), vec![template])?)
}

/// C_GenerateKey (PKCS #11 v3.1, 5.18.1).
pub(crate) fn generate_key(
    process: &Process,
    session: HandleSession,
    mechanism: &Mechanism,
    template: Template,
) -> Result<HandleObject> {
    let session = process.session(session)?;
    parameters::check(mechanism, GENERATE)?;
    let mechanism = MechanismMessage::from(mechanism);
    one(make(process, &session, MakeKind::GENERATE, Some(mechanism), None, vec![template])?)
}

/// C_GenerateKeyPair (PKCS #11 v3.1, 5.18.2).
pub(crate) fn generate_key_pair(
    process: &Process,
    session: HandleSession,
    mechanism: &Mechanism,
    public: Template,
    private: Template,
) -> Result<(HandleObject, HandleObject)> {
    let session = process.session(session)?;
    parameters::check(mechanism, GENERATE_KEY_PAIR)?;
    let mechanism = MechanismMessage::from(mechanism);
    let made =
        make(process, &session, MakeKind::GENERATE_PAIR, Some(mechanism), None, vec![public, private])?;
    match made[..] {
        [public, private] => Ok((public, private)),
        _ => Err(wrong_number(2, made.len())),
    }
}

fn one(made: Vec<HandleObject>) -> Result<HandleObject> {
    match made[..] {
        [object] => Ok(object),
        _ => Err(wrong_number(1, made.len())),
    }
}

fn wrong_number(wanted: usize, found: usize) -> Error {
    Error::Protocol(format!("wanted {wanted} made objects in a member's answer, found {found}"))
}

/// Makes objects and issues their handles.
fn make(
    process: &Process,
    session: &Entry<Session>,
    kind: MakeKind,
    mechanism: Option<MechanismMessage>,
    source: Option<&Handled>,
    templates: Vec<Template>,
) -> Result<Vec<HandleObject>> {
    let inherited = source.is_some_and(|source| source.home == Home::Token);
    let for_token = |template: &Template| template.bool(AttributeType::TOKEN).unwrap_or(inherited);
    if !session.read_write && templates.iter().any(for_token) {
        return Err(Rv::SESSION_READ_ONLY.into());
    }
    let tag = process.random::<16>();
    let answer = naming(source.map(|source| &***source), |source| {
        asking(process, session).create(Make {
            kind: kind.0,
            mechanism: mechanism.clone(),
            templates: templates.clone(),
            source,
            tag: tag.to_vec(),
        })
    })?;
    let issue = |made: &spec::messages::MadeObject| {
        let slot = session.slot.id;
        if made.token {
            let ouid = ouid_of(&made.ouid)?;
            return process.handles.issue(
                process.world().index(),
                slot,
                ouid,
                made.private,
                (made.version, None),
            );
        }
        session.objects.fetch_add(1, Ordering::AcqRel);
        process.handles.issue_session(slot, session.key, made)
    };
    let made = answer.outputs.iter().map(issue).collect::<Result<Vec<Handled>>>()?;
    if process.sessions.look_up(session.key).is_none() {
        // The session was closed meanwhile: its objects go with it.
        for object in made.iter().filter(|object| object.home != Home::Token) {
            process.handles.end(process.world().index(), object);
        }
        return Err(Rv::SESSION_HANDLE_INVALID.into());
    }
    Ok(made.iter().map(|object| HandleObject(object.key)).collect())
}

/// C_DestroyObject (PKCS #11 v3.1, 5.7.3).
pub(crate) fn destroy(process: &Process, session: HandleSession, handle: HandleObject) -> Result<()> {
    let session = process.session(session)?;
    let object = object(process, &session, handle)?;
    if object.home == Home::Token {
        if !session.read_write {
            return Err(Rv::SESSION_READ_ONLY.into());
        }
        let answer = asking(process, &session).destroy(object.reference(&object.state(), false));
        gone(process, &object, &answer);
        answer?;
    } else if object.readable_bool(AttributeType::DESTROYABLE) == Some(false) {
        return Err(Rv::ACTION_PROHIBITED.into());
    }
    end(process, &object);
    Ok(())
}

/// Ends the handle of an object that the members say is gone.
pub(crate) fn gone<T>(process: &Process, object: &Handled, answer: &Result<T>) {
    if matches!(answer, Err(Error::Gone)) {
        end(process, object);
    }
}

fn end(process: &Process, object: &Handled) {
    process.handles.end(process.world().index(), object);
    object.plans.forget();
}

/// C_GetObjectSize (PKCS #11 v3.1, 5.7.3): what a session object occupies here; a token object only has to exist.
pub(crate) fn size(process: &Process, session: HandleSession, handle: HandleObject) -> Result<u64> {
    let open = process.session(session)?;
    let object = object(process, &open, handle)?;
    if object.home == Home::Token {
        get(process, session, handle, &[AttributeType::CLASS])?;
        return Ok(UNAVAILABLE_INFORMATION);
    }
    Ok(u64::try_from(object.state().blob.len()).unwrap_or(UNAVAILABLE_INFORMATION))
}

/// C_GetAttributeValue (PKCS #11 v3.1, 5.7.5). A session object answers from its readable attributes when they are
/// all among them: its whole state is here.
pub(crate) fn get(
    process: &Process,
    session: HandleSession,
    handle: HandleObject,
    kinds: &[AttributeType],
) -> Result<Vec<AttributeResult>> {
    let session = process.session(session)?;
    let object = object(process, &session, handle)?;
    read(process, &session, &object, kinds)
}

/// The attributes of an object, one result for each.
pub(crate) fn read(
    process: &Process,
    session: &Session,
    object: &Handled,
    kinds: &[AttributeType],
) -> Result<Vec<AttributeResult>> {
    let state = object.state();
    let here =
        |kind: &AttributeType| state.readable.get(*kind).map(|value| Ok(Zeroizing::new(value.to_vec())));
    if object.home != Home::Token
        && let Some(values) = kinds.iter().map(here).collect()
    {
        return Ok(values);
    }
    let numbers: Vec<u64> = kinds.iter().map(|kind| kind.0).collect();
    let answer = naming(Some(object), |object| {
        let call = GetAttributes { object, numbers: numbers.clone() };
        asking(process, session).any(Call::GetAttributes(call))
    });
    gone(process, object, &answer);
    let Answer::GetAttributes(mut answer) = answer? else { return Err(strange("GetAttributes")) };
    if answer.values.len() != kinds.len() {
        return Err(strange("GetAttributes"));
    }
    object.learn(answer.version, answer.changed.as_ref());
    let result = |value: &mut spec::messages::AttributeValue| match Rv(value.rv) {
        Rv::OK => Ok(Zeroizing::new(std::mem::take(&mut value.value))),
        rv => Err(rv),
    };
    Ok(answer.values.iter_mut().map(result).collect())
}

/// C_SetAttributeValue (PKCS #11 v3.1, 5.7.6).
pub(crate) fn set(
    process: &Process,
    session: HandleSession,
    handle: HandleObject,
    template: Template,
) -> Result<()> {
    let session = process.session(session)?;
    let object = object(process, &session, handle)?;
    let token = object.home == Home::Token;
    if token && !session.read_write {
        return Err(Rv::SESSION_READ_ONLY.into());
    }
    let tag = process.random::<16>();
    let answer = naming(Some(&object), |object| {
        let seen = object.as_ref().and_then(|object| object.least);
        let change = SetAttributes { object, template: Some(template.clone()), tag: tag.to_vec(), seen };
        asking(process, &session).change(change)
    });
    gone(process, &object, &answer);
    let mut answer = answer?;
    if token {
        object.learn(answer.version, answer.changed.as_ref());
    } else {
        object.replace(
            answer.version,
            std::mem::take(&mut answer.blob),
            std::mem::take(&mut answer.readable).unwrap_or_default(),
        );
    }
    object.plans.forget();
    Ok(())
}

/// C_FindObjectsInit (PKCS #11 v3.1, 5.7.7).
pub(crate) fn find_init(process: &Process, session: HandleSession, template: Template) -> Result<()> {
    let session = process.session(session)?;
    let mut cell = session.find.take(process.epoch())?;
    cell.check_idle()?;
    let slot = session.slot.id;
    let mut found: Vec<(Ouid, HandleObject)> = Vec::new();
    let token = template.bool(AttributeType::TOKEN);
    if token != Some(true) {
        let matching = process.handles.session_objects(slot).filter(|object| object.matches(&template));
        found.extend(matching.map(|object| (object.ouid, HandleObject(object.key))));
    }
    if token != Some(false) {
        for match_ in asking(process, &session).find(template)? {
            let ouid = ouid_of(&match_.ouid)?;
            let index = process.world();
            let state = (match_.version, match_.changed.as_ref());
            let object = process.handles.issue(index.index(), slot, ouid, match_.private, state)?;
            found.push((ouid, HandleObject(object.key)));
        }
    }
    found.sort_unstable_by_key(|(ouid, _)| *ouid);
    cell.begin(Search { found: found.into_iter().map(|(_, handle)| handle).collect(), told: 0 });
    Ok(())
}

/// C_FindObjects (PKCS #11 v3.1, 5.7.8).
pub(crate) fn find(process: &Process, session: HandleSession, max: usize) -> Result<Vec<HandleObject>> {
    let session = process.session(session)?;
    let mut cell = session.find.take(process.epoch())?;
    let search = cell.operation()?;
    let rest = search.found.get(search.told..).unwrap_or_default();
    let told: Vec<HandleObject> = rest.iter().take(max).copied().collect();
    search.told += told.len();
    cell.settle(Ok(()), false)?;
    Ok(told)
}

/// C_FindObjectsFinal (PKCS #11 v3.1, 5.7.9).
pub(crate) fn find_final(process: &Process, session: HandleSession) -> Result<()> {
    let session = process.session(session)?;
    let mut cell = session.find.take(process.epoch())?;
    cell.operation()?;
    cell.settle(Ok(()), true)
}
