//! Many token objects: they are found by label, id and class and read, before and after the server's restart. What that takes
//! with few and with many of them, and the start of a server with them, is printed, not asserted.
//!
//! ```text
//! HATOKI_OBJECTS=100000 HATOKI_KEEP=1 TMPDIR=/dev/shm cargo test -p appliance --test many_objects -- --nocapture
//! ```
//! `HATOKI_KEEP` keeps the folder, so that another build of `hsmd` can be started on it.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::time::{Duration, Instant};

use appliance::handler::now_ms;
use partition::{Caller, Partition};
use prost::Message;
use spec::messages::{
    Answer, Call, Find, FindAnswer, GetAttributes, Login, Make, MakeKind, MechanismMessage, ObjectRef,
    ReplyBody, RequestBody, RequestHeader, Status, Store,
};
use spec::value::{Attribute, Template};
use spec::{AttributeType, MechanismType, ObjectClass, UserType};
use support::{CO_PIN, House};

/// So many objects unless `HATOKI_OBJECTS` says otherwise.
const OBJECTS: usize = 300;
/// What many are compared with.
const FEW: usize = 100;
const PAGE: u32 = 100;
const CALLER: Caller = Caller { client: [1; 32], instance: [2; 32] };

/// A client of the partition without a link.
struct Application<'a> {
    partition: &'a Partition,
    serial: u64,
    front: RequestBody,
}

impl<'a> Application<'a> {
    fn new(partition: &'a Partition, serial: u64) -> Self {
        let mut application = Self { partition, serial, front: RequestBody::default() };
        let Some(Answer::Status(status)) = application.ask(Call::Status(Status::default())) else { panic!() };
        let manifest = status.manifest.unwrap();
        (application.front.group, application.front.generation) = (manifest.group, manifest.generation);
        let login = Login { user: UserType::USER.0, pin: CO_PIN.to_vec(), tag: vec![1; 16] };
        let Some(Answer::Login(login)) = application.ask(Call::Login(login)) else { panic!() };
        application.front.ticket = login.ticket.clone();
        application
    }

    fn ask(&self, call: Call) -> Option<Answer> {
        let body = RequestBody { call: Some(call), ..self.front.clone() }.encode_to_vec();
        let header =
            RequestHeader { partition: self.serial, remaining_ms: u32::MAX, ..RequestHeader::default() };
        let (_, reply) = self.partition.handle(&CALLER, &header, &body, now_ms());
        let reply = ReplyBody::decode(reply.as_slice()).unwrap();
        assert_eq!(reply.outcome, 0, "{} (rv {:#x})", reply.text, reply.rv);
        reply.answer
    }

    /// A new AES key, labelled with its number.
    fn make(&self, number: usize) {
        let mechanism = MechanismMessage { number: MechanismType::AES_KEY_GEN.0, ..Default::default() };
        let attributes = vec![
            Attribute::bool(AttributeType::TOKEN, true),
            Attribute::ulong(AttributeType::VALUE_LEN, 32),
            Attribute::new(AttributeType::LABEL, label(number)),
            Attribute::new(AttributeType::ID, (number as u64).to_be_bytes().to_vec()),
        ];
        let mut tag = vec![3; 16];
        tag[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let make = Make {
            kind: MakeKind::GENERATE.0,
            mechanism: Some(mechanism),
            templates: vec![Template { attributes }],
            source: None,
            tag: tag.clone(),
        };
        let Some(Answer::Make(made)) = self.ask(Call::Make(make)) else { panic!() };
        self.ask(Call::Store(Store { batch: made.batch, tag, provisional: false }));
    }

    fn find(&self, attribute: Attribute) -> FindAnswer {
        let template = Some(Template { attributes: vec![attribute] });
        let find = Find { template, limit: PAGE, ..Find::default() };
        let Some(Answer::Find(answer)) = self.ask(Call::Find(find)) else { panic!() };
        answer
    }

    /// Finds object `number` of `count` in every way and reads it; what each took.
    fn look_for(&self, number: usize, count: usize) -> [Duration; 4] {
        let begun = Instant::now();
        let by_label = self.find(Attribute::new(AttributeType::LABEL, label(number)));
        let labelled = begun.elapsed();
        let by_id = self.find(Attribute::new(AttributeType::ID, (number as u64).to_be_bytes().to_vec()));
        let identified = begun.elapsed();
        let by_class = self.find(Attribute::ulong(AttributeType::CLASS, ObjectClass::SECRET_KEY.0));
        let classed = begun.elapsed();
        let [found] = &by_label.found[..] else { panic!("one object has the label") };
        assert!(!by_label.more && by_label.found == by_id.found);
        assert_eq!(by_class.found.len(), count.min(PAGE as usize));
        let numbers = [AttributeType::LABEL, AttributeType::ID, AttributeType::VALUE_LEN].map(|kind| kind.0);
        let object = Some(ObjectRef { ouid: found.ouid.clone(), ..ObjectRef::default() });
        let asked = Instant::now();
        let get = GetAttributes { object, numbers: numbers.to_vec() };
        let Some(Answer::GetAttributes(answer)) = self.ask(Call::GetAttributes(get)) else { panic!() };
        let read = asked.elapsed();
        assert_eq!(answer.values[0].value, label(number));
        assert_eq!(answer.values[2].value, 32_u64.to_le_bytes());
        [labelled, identified - labelled, classed - identified, read]
    }

    /// The median of what looking for some of so many objects takes, in microseconds.
    fn measure(&self, count: usize) -> [u128; 4] {
        let all: Vec<_> =
            (0..count).step_by(count.div_ceil(100)).map(|at| self.look_for(at, count)).collect();
        [0, 1, 2, 3].map(|way| {
            let mut took: Vec<_> = all.iter().map(|all| all[way].as_micros()).collect();
            took.sort_unstable();
            took[took.len() / 2]
        })
    }
}

fn label(number: usize) -> Vec<u8> {
    format!("object {number}").into_bytes()
}

fn say(count: usize, [label, id, class, read]: [u128; 4]) {
    println!(
        "{count} objects: found by label in {label} us, by id in {id} us, a page of {PAGE} of a class in {class} us, three \
         attributes read in {read} us"
    );
}

#[test]
fn many_objects_are_found_and_read_as_few_are_and_after_a_restart() {
    let count = std::env::var("HATOKI_OBJECTS").map_or(OBJECTS, |count| count.parse().unwrap()).max(FEW);
    let house = House::new("");
    let serial = house.serial;
    let handler = |house: &House| house.appliance.partitions.find("par0").unwrap().handler.unwrap();
    {
        let handler = handler(&house);
        let application = Application::new(handler.partition().unwrap(), serial);
        (0..FEW).for_each(|number| application.make(number));
        say(FEW, application.measure(FEW));
        (FEW..count).for_each(|number| application.make(number));
        say(count, application.measure(count));
    }
    let house = house.restart();
    println!("a server with {count} objects was opened in {} ms", house.opening.as_millis());
    {
        let handler = handler(&house);
        let application = Application::new(handler.partition().unwrap(), serial);
        assert_eq!(application.partition.objects(), count as u64);
        say(count, application.measure(count));
    }
    if std::env::var_os("HATOKI_KEEP").is_some() {
        println!("kept in {}", house.place.keep().display());
    }
}
