//! Everything that a proto declares says what it means.

use crate::{expect_none, files, shown};

/// A line that declares something which needs a comment right above it.
fn declares(line: &str) -> bool {
    let line = line.split("//").next().unwrap_or_default().trim();
    let first = line.split_whitespace().next().unwrap_or_default();
    match first {
        "message" | "enum" | "service" | "rpc" | "oneof" => true,
        "syntax" | "package" | "import" | "option" | "reserved" | "extensions" | "" => false,
        // Fields and enum values: "Type name = 1;" or "NAME = 1;", options allowed.
        _ => line.contains('=') && line.ends_with(';'),
    }
}

#[test]
fn everything_in_the_protos_is_commented() {
    let mut wrong = Vec::new();
    for path in files("proto", "proto") {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut above = "";
        for (number, line) in text.lines().enumerate() {
            if declares(line) && !above.starts_with("//") {
                wrong.push(format!("{}:{}: {}", shown(&path), number + 1, line.trim()));
            }
            above = line.trim();
        }
    }
    expect_none("declarations without a comment right above", &wrong);
}

/// Fields that are said to be output only are marked so for programs too (aip.dev/203), and the other way round: a member says it
/// by its message as a whole.
#[test]
fn what_is_output_only_is_marked_so() {
    const MARK: &str = "(google.api.field_behavior) = OUTPUT_ONLY";
    let (mut wrong, mut marked) = (Vec::new(), 0);
    for path in files("proto/trestle/v1", "proto") {
        let text = std::fs::read_to_string(&path).unwrap();
        let (mut said, mut message) = (false, "");
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if let Some(name) = line.strip_prefix("message ") {
                message = name.trim_end_matches(" {");
            }
            if line.starts_with("//") {
                said = line.starts_with("// Output only") || said && !line.starts_with("// Output");
                continue;
            }
            let has = line.contains(MARK);
            marked += usize::from(has);
            if has != said && message != "Member" {
                wrong.push(format!("{}:{}: {line}", shown(&path), number + 1));
            }
            said = false;
        }
    }
    expect_none("fields whose comment and mark differ in whether they are output only", &wrong);
    assert!(marked >= 12, "{marked} fields are marked");
}

#[test]
fn the_scan_sees_what_it_is_for() {
    for line in [
        "message A {",
        "  uint64 a = 1;",
        "  A_B = 0;",
        "  rpc Get(A) returns (B);",
        "oneof x {",
        "optional uint32 w = 3;",
    ] {
        assert!(declares(line), "{line}");
    }
    for line in ["// a = 1;", "}", "", "syntax = \"proto3\";", "import \"a.proto\";", "reserved 4;"] {
        assert!(!declares(line), "{line}");
    }
}
