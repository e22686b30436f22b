//! TLS, as far as it can be read without keys: the name in a ClientHello (RFC 8446, 4.1.2; RFC 6066, 3).

/// What the first bytes of a connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// They are no TLS.
    Other,
    /// More bytes are needed.
    Short,
    /// A ClientHello, with the name that it asks for.
    Client(Option<String>),
}

/// A ClientHello with post-quantum keys has under 2 KiB; more is no honest one.
pub const LONGEST: usize = 16 * 1024;

/// Reads the first bytes of a connection.
pub fn hello(bytes: &[u8]) -> Hello {
    // Records of type handshake; a ClientHello may be spread over several.
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        match rest {
            [] => break,
            [22] | [22, 3] => break,
            [22, 3, minor, tail @ ..] if *minor <= 4 => {
                let [high, low, body @ ..] = tail else { break };
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > LONGEST + 256 {
                    return Hello::Other;
                }
                let part = body.get(..length.min(body.len())).unwrap_or_default();
                handshake.extend_from_slice(part);
                rest = body.get(part.len()..).unwrap_or_default();
                if part.len() < length || complete(&handshake) {
                    break;
                }
            }
            _ if handshake.is_empty() => return Hello::Other,
            _ => break,
        }
    }
    if handshake.first().is_some_and(|kind| *kind != 1) {
        return Hello::Other;
    }
    if !complete(&handshake) {
        return if bytes.len() > LONGEST { Hello::Other } else { Hello::Short };
    }
    Hello::Client(server_name(&handshake))
}

fn length_of(handshake: &[u8]) -> Option<usize> {
    let [_, a, b, c, ..] = handshake else { return None };
    Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
}

fn complete(handshake: &[u8]) -> bool {
    length_of(handshake).is_some_and(|length| handshake.len() >= 4 + length)
}

/// Takes a vector with a length of so many bytes from the front.
fn vector<'a>(bytes: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
    let (vector, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(vector)
}

fn server_name(handshake: &[u8]) -> Option<String> {
    let length = length_of(handshake)?;
    // Version and random.
    let mut body = handshake.get(4..4 + length)?.get(34..)?;
    vector(&mut body, 1)?; // session
    vector(&mut body, 2)?; // cipher suites
    vector(&mut body, 1)?; // compression
    let mut extensions = vector(&mut body, 2)?;
    while let Some((kind, rest)) = extensions.split_at_checked(2) {
        extensions = rest;
        let mut data = vector(&mut extensions, 2)?;
        if kind == [0, 0] {
            let mut names = vector(&mut data, 2)?;
            let (first, rest) = names.split_at_checked(1)?;
            names = rest;
            let name = vector(&mut names, 2)?;
            let good = first == [0]
                && !name.is_empty()
                && name.len() <= 253
                && name.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'));
            return good.then(|| String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn client_hello(name: &str) -> Vec<u8> {
        let name = name.as_bytes();
        let two = |n: usize| u16::try_from(n).expect("short").to_be_bytes();
        let mut sni = two(name.len() + 3).to_vec();
        sni.push(0);
        sni.extend(two(name.len()));
        sni.extend(name);
        let mut extensions = vec![0xff, 0x01, 0, 1, 0];
        extensions.extend([0, 0]);
        extensions.extend(two(sni.len()));
        extensions.extend(&sni);
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(two(extensions.len()));
        body.extend(&extensions);
        let mut handshake = vec![1, 0];
        handshake.extend(two(body.len()));
        handshake.extend(&body);
        let mut record = vec![22, 3, 1];
        record.extend(two(handshake.len()));
        record.extend(&handshake);
        record
    }

    #[test]
    fn the_name_is_read_whole_in_parts_and_over_several_records() {
        let whole = client_hello("Api.Example.com");
        assert_eq!(hello(&whole), Hello::Client(Some("api.example.com".into())));
        for cut in 0..whole.len() {
            assert_eq!(hello(&whole[..cut]), Hello::Short, "{cut} bytes");
        }
        let body = &whole[5..];
        let mut split = Vec::new();
        for part in body.chunks(20) {
            split.extend([22, 3, 1, 0, u8::try_from(part.len()).expect("short")]);
            split.extend(part);
        }
        assert_eq!(hello(&split), Hello::Client(Some("api.example.com".into())));
    }

    #[test]
    fn what_is_no_hello_or_has_no_honest_name_is_told_apart() {
        assert_eq!(hello(b"GET / HTTP/1.1\r\n"), Hello::Other);
        assert_eq!(hello(&[22, 3, 1, 0xff, 0xff]), Hello::Other);
        assert_eq!(hello(&[22, 3, 1, 0, 1, 2]), Hello::Other);
        assert_eq!(hello(&client_hello("evil\r\nhost")), Hello::Client(None));
        assert_eq!(hello(&client_hello("")), Hello::Client(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400), flips in proptest::collection::vec((0usize..120, any::<u8>()), 1..4)) {
            let _ = hello(&bytes);
            let mut changed = client_hello("a.example.com");
            for (at, to) in flips {
                let at = at % changed.len();
                changed[at] = to;
            }
            let _ = hello(&changed);
        }
    }
}
