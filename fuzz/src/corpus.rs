//! Seed inputs: one well-formed sample of each kind, made by our own encoders.

use prost::Message;
use spec::messages::{
    Call, Find, GetAttributes, Hello, HelloReply, KeyFunction, Login, Make, MakeKind, MechanismMessage,
    ObjectRef, PartitionName, Plan, Random, ReplyBody, RequestBody, SeenMember, SetAttributes, Status, Store,
    Use,
};
use spec::value::{Attribute, Template};
use spec::{AttributeType, MechanismType};

/// A body of every shape of call.
pub fn requests() -> Vec<Vec<u8>> {
    let key = Some(ObjectRef { ouid: vec![7; 16], ..Default::default() });
    let mechanism = Some(MechanismMessage { number: MechanismType::ECDSA.0, ..Default::default() });
    let template = Template::from(vec![
        Attribute::ulong(AttributeType::CLASS, 4),
        Attribute::bool(AttributeType::TOKEN, true),
        Attribute::new(AttributeType::LABEL, b"label".to_vec()),
    ]);
    let function = KeyFunction::SIGN.0;
    let calls = [
        Call::Status(Status {
            mechanisms: true,
            seen: vec![SeenMember {
                serial: 7,
                root: vec![1; 32],
                proof: vec![2; 32],
                ..SeenMember::default()
            }],
        }),
        Call::Login(Login { user: 1, pin: b"1234567".to_vec(), tag: vec![1; 16] }),
        Call::Plan(Plan { function, mechanism: mechanism.clone(), key: key.clone() }),
        Call::Use(signature(key.clone(), mechanism.clone())),
        Call::Random(Random { bytes: 32 }),
        Call::Make(Make {
            kind: MakeKind::GENERATE.0,
            mechanism,
            templates: vec![template.clone()],
            source: None,
            tag: vec![2; 16],
        }),
        Call::Store(Store { batch: vec![9; 64], tag: vec![2; 16], provisional: true }),
        Call::Find(Find { template: Some(template.clone()), after: Vec::new(), limit: 10 }),
        Call::GetAttributes(GetAttributes { object: key.clone(), numbers: vec![0, 3] }),
        Call::SetAttributes(SetAttributes {
            object: key,
            template: Some(template),
            tag: vec![4; 16],
            seen: None,
        }),
    ];
    calls
        .into_iter()
        .map(|call| {
            RequestBody { group: vec![5; 16], generation: 1, ticket: vec![6; 40], call: Some(call) }
                .encode_to_vec()
        })
        .collect()
}

/// One signature of 32 bytes.
fn signature(key: Option<ObjectRef>, mechanism: Option<MechanismMessage>) -> Use {
    let mut request = Use::default();
    request.function = KeyFunction::SIGN.0;
    request.mechanism = mechanism;
    request.key = key;
    request.how = 1;
    request.data = vec![3; 32];
    request
}

/// Greetings and an answer.
pub fn replies() -> Vec<Vec<u8>> {
    let partitions = vec![PartitionName { serial: 1_234_567_890_123, label: "part".to_owned() }];
    vec![
        Hello { version: 1, instance: vec![1; 32], proof: vec![2; 64], ..Default::default() }.encode_to_vec(),
        HelloReply { version: 1, partitions, ..Default::default() }.encode_to_vec(),
        ReplyBody { outcome: 1, rv: 0x60, text: "wanted a key".to_owned(), ..Default::default() }
            .encode_to_vec(),
    ]
}

/// Frames around the bodies, by their layout in docs/wire.md.
pub fn frames() -> Vec<Vec<u8>> {
    let frame = |kind: u8, header_bytes: usize, body: &[u8]| {
        let length = u32::try_from(1 + header_bytes + body.len()).unwrap_or(0);
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.resize(bytes.len() + header_bytes, 0);
        bytes.extend_from_slice(body);
        bytes
    };
    let mut all: Vec<Vec<u8>> = requests().iter().map(|body| frame(3, 56, body)).collect();
    all.extend(replies().iter().zip([1, 2]).map(|(body, kind)| frame(kind, 0, body)));
    all.push(frame(4, 48, &replies()[2]));
    all.push(
        [frame(5, 8, &[]), frame(6, 12, &[]), frame(7, 8, &[]), frame(8, 8, &[]), frame(9, 8, &[])].concat(),
    );
    all.push(frame(10, 0, b"bye"));
    all
}

/// Configurations that exercise the grammar.
pub fn configurations() -> Vec<Vec<u8>> {
    let small = "# c\nLunaSA Client = {\n\tServerName00 = 127.0.0.1;\n ServerPort00 = 1792; // port\n ServerHtl00 = ;\n}\n\
                 VirtualToken = { VirtualToken00Label = ha; VirtualToken00SN = 11; VirtualToken00Members = 1, 2; }\n";
    vec![small.as_bytes().to_vec(), include_bytes!("../../Chrystoki.conf.example").to_vec()]
}
