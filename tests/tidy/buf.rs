//! The rules of `buf lint` that proto/buf.yaml uses, without buf, which is no crate. The category COMMENTS is checked in
//! protos.rs. Names of rules are buf's (buf.build/docs/lint/rules).

use std::collections::{BTreeMap, BTreeSet};

use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, ServiceDescriptorProto};

use crate::{expect_none, files, root, shown};

/// What breaks a rule: the file, the rule, and what it is.
type Findings = Vec<(String, &'static str, String)>;

/// All rules of the category STANDARD. Those about packages of other languages are one here: no file has such an option.
const RULES: &[&str] = &[
    "DIRECTORY_SAME_PACKAGE",
    "PACKAGE_DEFINED",
    "PACKAGE_DIRECTORY_MATCH",
    "PACKAGE_NO_IMPORT_CYCLE",
    "PACKAGE_SAME_DIRECTORY",
    "ENUM_FIRST_VALUE_ZERO",
    "ENUM_NO_ALLOW_ALIAS",
    "ENUM_PASCAL_CASE",
    "ENUM_VALUE_UPPER_SNAKE_CASE",
    "FIELD_LOWER_SNAKE_CASE",
    "FIELD_NOT_REQUIRED",
    "IMPORT_NO_PUBLIC",
    "IMPORT_USED",
    "MESSAGE_PASCAL_CASE",
    "ONEOF_LOWER_SNAKE_CASE",
    "PACKAGE_LOWER_SNAKE_CASE",
    "PACKAGE_SAME_OPTIONS",
    "RPC_PASCAL_CASE",
    "SERVICE_PASCAL_CASE",
    "SYNTAX_SPECIFIED",
    "ENUM_VALUE_PREFIX",
    "ENUM_ZERO_VALUE_SUFFIX",
    "FILE_LOWER_SNAKE_CASE",
    "PACKAGE_VERSION_SUFFIX",
    "PROTOVALIDATE",
    "RPC_REQUEST_RESPONSE_UNIQUE",
    "RPC_REQUEST_STANDARD_NAME",
    "RPC_RESPONSE_STANDARD_NAME",
    "SERVICE_SUFFIX",
];

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_lower_snake(name: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.split('_').all(part)
}

fn is_upper_snake(name: &str) -> bool {
    is_lower_snake(&name.to_ascii_lowercase()) && name == name.to_ascii_uppercase()
}

/// `MemberState` as `MEMBER_STATE`.
fn upper_snake(pascal: &str) -> String {
    let mut text = String::new();
    let mut before = 'A';
    for letter in pascal.chars() {
        if letter.is_ascii_uppercase() && !before.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
        before = letter;
    }
    text
}

/// One file under examination.
struct Lint<'a> {
    file: &'a FileDescriptorProto,
    found: Findings,
    /// Full names of types that its fields and calls name.
    used: BTreeSet<String>,
}

impl Lint<'_> {
    fn unless(&mut self, holds: bool, rule: &'static str, what: impl Into<String>) {
        assert!(RULES.contains(&rule), "{rule} is not in the table");
        if !holds {
            self.found.push((self.file.name().to_owned(), rule, what.into()));
        }
    }

    fn whole(&mut self) {
        let file = self.file;
        let (package, path) = (file.package(), file.name());
        self.unless(!package.is_empty(), "PACKAGE_DEFINED", "no package");
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.unless(directory == package.replace('.', "/"), "PACKAGE_DIRECTORY_MATCH", package);
        self.unless(package.split('.').all(is_lower_snake), "PACKAGE_LOWER_SNAKE_CASE", package);
        let version = package.rsplit('.').next().and_then(|last| last.strip_prefix('v'));
        let versioned = version.is_some_and(|v| v.starts_with(|c: char| ('1'..='9').contains(&c)));
        self.unless(versioned, "PACKAGE_VERSION_SUFFIX", package);
        self.unless(is_lower_snake(name.trim_end_matches(".proto")), "FILE_LOWER_SNAKE_CASE", name);
        self.unless(file.syntax() == "proto3", "SYNTAX_SPECIFIED", file.syntax());
        self.unless(file.public_dependency.is_empty(), "IMPORT_NO_PUBLIC", "public import");
        let validates = file.dependency.iter().any(|import| import.starts_with("buf/validate"));
        self.unless(!validates, "PROTOVALIDATE", "its rules cannot be compiled here");
        // Each rule wants the files of a package to agree; that none has one is simplest.
        let options = file.options.as_ref().is_some_and(|options| *options != Default::default());
        self.unless(!options, "PACKAGE_SAME_OPTIONS", "an option of another language");
        file.message_type.iter().for_each(|message| self.message(message));
        file.enum_type.iter().for_each(|one| self.enumeration(one));
        file.service.iter().for_each(|service| self.service(service));
    }

    fn message(&mut self, message: &DescriptorProto) {
        // What a map is made of has the compiler's names.
        if message.options.as_ref().is_some_and(|options| options.map_entry()) {
            self.used.extend(message.field.iter().map(|field| field.type_name().to_owned()));
            return;
        }
        self.unless(is_pascal(message.name()), "MESSAGE_PASCAL_CASE", message.name());
        for field in &message.field {
            let what = format!("{}.{}", message.name(), field.name());
            self.unless(is_lower_snake(field.name()), "FIELD_LOWER_SNAKE_CASE", &what);
            self.unless(field.label() != Label::Required, "FIELD_NOT_REQUIRED", &what);
            self.used.insert(field.type_name().to_owned());
        }
        // `optional` makes a oneof of its own, with an underscore before its name.
        let real = message.oneof_decl.iter().map(|oneof| oneof.name()).filter(|name| !name.starts_with('_'));
        real.for_each(|name| self.unless(is_lower_snake(name), "ONEOF_LOWER_SNAKE_CASE", name));
        message.nested_type.iter().for_each(|message| self.message(message));
        message.enum_type.iter().for_each(|one| self.enumeration(one));
    }

    fn enumeration(&mut self, one: &EnumDescriptorProto) {
        let aliased = one.options.as_ref().is_some_and(|options| options.allow_alias());
        self.unless(!aliased, "ENUM_NO_ALLOW_ALIAS", one.name());
        self.unless(is_pascal(one.name()), "ENUM_PASCAL_CASE", one.name());
        let zero = one.value.first().is_some_and(|first| first.number() == 0);
        self.unless(zero, "ENUM_FIRST_VALUE_ZERO", one.name());
        let prefix = upper_snake(one.name()) + "_";
        for value in &one.value {
            let name = value.name();
            self.unless(is_upper_snake(name), "ENUM_VALUE_UPPER_SNAKE_CASE", name);
            self.unless(name.starts_with(&prefix), "ENUM_VALUE_PREFIX", format!("{name}: {prefix}"));
            let suffixed = value.number() != 0 || name.ends_with("_UNSPECIFIED");
            self.unless(suffixed, "ENUM_ZERO_VALUE_SUFFIX", name);
        }
    }

    fn service(&mut self, service: &ServiceDescriptorProto) {
        self.unless(is_pascal(service.name()), "SERVICE_PASCAL_CASE", service.name());
        self.unless(service.name().ends_with("Service"), "SERVICE_SUFFIX", service.name());
        for call in &service.method {
            let name = call.name();
            self.unless(is_pascal(name), "RPC_PASCAL_CASE", name);
            let ends = [
                (call.input_type(), "Request", "RPC_REQUEST_STANDARD_NAME"),
                (call.output_type(), "Response", "RPC_RESPONSE_STANDARD_NAME"),
            ];
            for (kind, suffix, rule) in ends {
                let short = kind.rsplit('.').next().unwrap_or_default();
                let wanted = [format!("{name}{suffix}"), format!("{}{name}{suffix}", service.name())];
                self.unless(wanted.iter().any(|wanted| short == wanted), rule, format!("{name}: {short}"));
                self.used.insert(kind.to_owned());
            }
        }
    }
}

/// All types that a file declares, by full name as descriptors write it.
fn declared(file: &FileDescriptorProto) -> BTreeSet<String> {
    fn below(
        prefix: &str,
        messages: &[DescriptorProto],
        enums: &[EnumDescriptorProto],
        all: &mut BTreeSet<String>,
    ) {
        all.extend(enums.iter().map(|one| format!("{prefix}.{}", one.name())));
        for message in messages {
            let name = format!("{prefix}.{}", message.name());
            below(&name, &message.nested_type, &message.enum_type, all);
            all.insert(name);
        }
    }
    let mut all = BTreeSet::new();
    below(&format!(".{}", file.package()), &file.message_type, &file.enum_type, &mut all);
    all
}

fn lint(files: &[FileDescriptorProto]) -> Findings {
    let mut found = Findings::new();
    let by_name: BTreeMap<&str, &FileDescriptorProto> =
        files.iter().map(|file| (file.name(), file)).collect();
    let (mut packages, mut directories) = (BTreeMap::new(), BTreeMap::new());
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut ends = BTreeSet::new();
    for file in files.iter().filter(|file| !file.name().starts_with("google/")) {
        let mut lint = Lint { file, found: Findings::new(), used: BTreeSet::new() };
        lint.whole();
        let directory = file.name().rsplit_once('/').map_or("", |(directory, _)| directory);
        let same = *packages.entry(file.package()).or_insert(directory) == directory;
        lint.unless(same, "PACKAGE_SAME_DIRECTORY", directory);
        let same = *directories.entry(directory).or_insert(file.package()) == file.package();
        lint.unless(same, "DIRECTORY_SAME_PACKAGE", file.package());
        for call in file.service.iter().flat_map(|service| &service.method) {
            let fresh = [call.input_type(), call.output_type()].into_iter().all(|kind| ends.insert(kind));
            lint.unless(fresh, "RPC_REQUEST_RESPONSE_UNIQUE", call.name());
        }
        for import in &file.dependency {
            let Some(imported) = by_name.get(import.as_str()) else { continue };
            // Options, which are what google/api has, are no part of what prost decodes.
            let used = import.starts_with("google/api/") || !declared(imported).is_disjoint(&lint.used);
            lint.unless(used, "IMPORT_USED", import);
            edges.entry(file.package()).or_default().insert(imported.package());
        }
        found.extend(lint.found);
    }
    for (package, imported) in &edges {
        let back = imported.iter().filter(|other| *other != package);
        let back = back.filter(|other| edges.get(*other).is_some_and(|theirs| theirs.contains(package)));
        let cycle = |other: &&str| ((*package).to_owned(), "PACKAGE_NO_IMPORT_CYCLE", (*other).to_owned());
        found.extend(back.map(cycle));
    }
    found
}

/// The rules that buf.yaml excepts, everywhere (`*`) or for one file each.
fn excepted(yaml: &str) -> BTreeSet<(String, String)> {
    let (mut part, mut rule, mut found) = ("", "", BTreeSet::new());
    for line in yaml.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let entry = match (line.strip_prefix("- "), line.strip_suffix(':')) {
            (Some(name), _) if part == "except" => (name, "*"),
            (Some(path), _) if part == "ignore_only" => (rule, path),
            (None, Some(name)) if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
                rule = name;
                continue;
            }
            (None, Some(name)) => {
                part = name;
                continue;
            }
            _ => continue,
        };
        found.insert((entry.0.to_owned(), entry.1.to_owned()));
    }
    found
}

#[test]
fn the_protos_keep_the_rules_of_buf() {
    let directory = root().join("proto");
    let paths: Vec<_> = files("proto", "proto");
    let descriptors = protox::compile(&paths, [&directory]).unwrap_or_else(|error| panic!("{error:?}"));
    let yaml = std::fs::read_to_string(directory.join("buf.yaml")).unwrap();
    assert!(yaml.contains("- STANDARD") && yaml.contains("- COMMENTS"), "{yaml}");
    let excepted = excepted(&yaml);
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for (file, rule, what) in lint(&descriptors.file) {
        let exceptions = [(rule.to_owned(), "*".to_owned()), (rule.to_owned(), file.clone())];
        if let Some(exception) = exceptions.into_iter().find(|exception| excepted.contains(exception)) {
            used.insert(exception);
        } else {
            wrong.push(format!("{file}: {rule}: {what}"));
        }
    }
    wrong.extend(
        excepted.difference(&used).map(|(rule, of)| format!("buf.yaml: {rule} for {of} is not needed")),
    );
    assert!(paths.len() > 8, "{:?}", paths.iter().map(|path| shown(path)).collect::<Vec<_>>());
    expect_none("what buf lint finds in proto/", &wrong);
}

/// The rules that are broken by a file of this text.
fn broken(path: &str, text: &str) -> Vec<&'static str> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    let descriptors =
        protox::compile([&file], [directory.path()]).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    lint(&descriptors.file).into_iter().map(|(_, rule, _)| rule).collect()
}

#[test]
fn each_rule_is_seen_to_be_broken() {
    let good = "syntax = \"proto3\"; package a.v1; message M { int32 a_b = 1; oneof one_of { int32 c = 2; } }
        enum TheState { THE_STATE_UNSPECIFIED = 0; THE_STATE_ON = 1; }
        message GetRequest { optional int32 a = 1; map<string, M> b = 2; } message GetResponse { TheState a = 1; }
        service AService { rpc Get(GetRequest) returns (GetResponse); }";
    assert_eq!(broken("a/v1/a.proto", good), [""; 0]);
    let changes = [
        ("package a.v1", "package b.v1", "PACKAGE_DIRECTORY_MATCH"),
        ("message M {", "message m_x {} message M {", "MESSAGE_PASCAL_CASE"),
        ("a_b", "aB", "FIELD_LOWER_SNAKE_CASE"),
        ("one_of", "oneOf", "ONEOF_LOWER_SNAKE_CASE"),
        ("THE_STATE_ON", "STATE_ON", "ENUM_VALUE_PREFIX"),
        ("THE_STATE_ON", "THE_STATE_on", "ENUM_VALUE_UPPER_SNAKE_CASE"),
        ("THE_STATE_UNSPECIFIED", "THE_STATE_OFF", "ENUM_ZERO_VALUE_SUFFIX"),
        ("AService", "Server", "SERVICE_SUFFIX"),
        ("rpc Get(", "rpc Fetch(", "RPC_REQUEST_STANDARD_NAME"),
        ("rpc Get(", "rpc Fetch(", "RPC_RESPONSE_STANDARD_NAME"),
        ("returns (GetResponse)", "returns (GetRequest)", "RPC_REQUEST_RESPONSE_UNIQUE"),
        ("package a.v1;", "package a.v1; import \"google/protobuf/duration.proto\";", "IMPORT_USED"),
        ("package a.v1;", "package a.v1; option java_package = \"x\";", "PACKAGE_SAME_OPTIONS"),
        (
            "THE_STATE_ON = 1;",
            "THE_STATE_ON = 1; THE_STATE_YES = 1; option allow_alias = true;",
            "ENUM_NO_ALLOW_ALIAS",
        ),
    ];
    for (from, to, rule) in changes {
        let changed = good.replace(from, to);
        assert!(changed != good, "{from}");
        let found = broken("a/v1/a.proto", &changed);
        assert!(found.contains(&rule), "{from} -> {to}: {found:?}");
    }
    assert_eq!(broken("a/v1/a.proto", "package a.v1; message M {}"), ["SYNTAX_SPECIFIED"]);
    assert!(broken("a/v1/aB.proto", good).contains(&"FILE_LOWER_SNAKE_CASE"));
    assert!(broken("a/a.proto", &good.replace("a.v1", "a")).contains(&"PACKAGE_VERSION_SUFFIX"));
}
