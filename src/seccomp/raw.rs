//! A program that somebody else has compiled: the annotation `run.oci.seccomp_bpf_data`.

use oci_spec::runtime::LinuxSeccomp;

use super::{Filter, Instruction, LONGEST};
use crate::error::{Code, Error, Result};

const PLACE: &str = "annotations.\"run.oci.seccomp_bpf_data\"";

/// Decodes a program: base64 of `struct sock_filter`, as this machine has it in memory. The flags are the profile's. Whether
/// the instructions make sense is for the kernel to say; what they mean for a call is not known.
pub fn raw(encoded: &str, profile: Option<&LinuxSeccomp>) -> Result<Filter> {
    let refuse =
        |why: String| Err(Error::new(Code::Seccomp, "use the seccomp filter of the annotation", why).at(PLACE));
    let Some(bytes) = decode(encoded) else {
        return refuse("it is not base64".to_owned());
    };
    let (instructions, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || instructions.is_empty() {
        return refuse(format!("{} bytes are no instructions of 8", bytes.len()));
    }
    if instructions.len() > LONGEST {
        return refuse(format!("it has {} instructions, and the kernel accepts {LONGEST}", instructions.len()));
    }
    let instruction = |[low, high, when_true, when_false, constant @ ..]: &[u8; 8]| Instruction {
        code: u16::from_ne_bytes([*low, *high]),
        when_true: *when_true,
        when_false: *when_false,
        constant: u32::from_ne_bytes(*constant),
    };
    let program: Vec<_> = instructions.iter().map(instruction).collect();
    if program.iter().any(|step| step.notifies()) {
        return refuse("it asks a seccomp agent, maybe of calls by which pura itself hands the agent over".to_owned());
    }
    let summary = format!("as the annotation has it; {} instructions", program.len());
    let flags = profile.map_or(0, |profile| super::flags(profile, false));
    Ok(Filter { program, flags, summary, unknown: Vec::new(), place: PLACE, native: None })
}

/// RFC 4648, with its padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.as_bytes().chunks(4) {
        let mut word = 0;
        for at in 0..4 {
            word = word << 6 | group.get(at).map_or(Some(0), |digit| value(*digit))?;
        }
        let [_, triple @ ..] = u32::to_be_bytes(word);
        bytes.extend(triple.iter().take(group.len() - 1));
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    let (first, start) = match digit {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(digit - first) + start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_with_its_padding_and_nothing_else_is() {
        for (text, wanted) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYmE=", Some(b"fooba")),
            ("+/+/", Some(b"\xfb\xff\xbf")),
            ("Zg", None),
            ("Zg=", None),
            ("Z===", None),
            ("Zg==Zg==", None),
            ("Zm9v\n", None),
            ("Zm-_", None),
            ("====", None),
        ] {
            assert_eq!(decode(text).as_deref(), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_program_is_whole_instructions_within_the_kernels_limit_that_ask_nobody() {
        // BPF_RET | BPF_K: SECCOMP_RET_ALLOW.
        let allow = "BgAAAAAA/38=";
        let filter = raw(allow, None).unwrap();
        assert_eq!(filter.program, [Instruction { code: 6, when_true: 0, when_false: 0, constant: 0x7fff_0000 }]);
        assert!(filter.allows("execve") && !filter.holds_up("execve") && !filter.notifies());
        // Three of them, unpadded in between: 24 bytes are 32 digits.
        let three = "BgAAAAAA/38GAAAAAAD/fwYAAAAAAP9/";
        assert_eq!(raw(three, None).unwrap().program.len(), 3);
        assert!(raw(&three.repeat(LONGEST / 3), None).is_ok());
        for (text, wanted) in [
            (three.repeat(LONGEST / 3 + 1), "4098 instructions"),
            (String::new(), "0 bytes"),
            ("Zm9v".to_owned(), "3 bytes"),
            ("Zm9".to_owned(), "not base64"),
            ("BgAAAAAAwH8=".to_owned(), "agent"),
        ] {
            let error = raw(&text, None).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("run.oci.seccomp_bpf_data"), "{error}");
        }
    }
}
