//! Guessing a protocol by the first bytes that a client says.

/// What the bytes look like, in a word or two.
pub fn protocol(first: &[u8]) -> &'static str {
    match first {
        [] => "the client waits for the server",
        // Length, then the version of the protocol or the code of a request for TLS.
        [0, 0, _, _, 0, 3, 0, 0, ..] | [0, 0, 0, 8, 4, 210, 22, 47, ..] => "PostgreSQL",
        [b'*', b'1'..=b'9', ..] => "Redis",
        [b'A', b'M', b'Q', b'P', ..] => "AMQP",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        [0x10, _, 0, 4, b'M', b'Q', b'T', b'T', ..] => "MQTT",
        [b'P', b'R', b'I', b' ', ..] => "HTTP/2 without TLS",
        [22, 3, ..] => "TLS, broken off",
        [5, 1..=9, ..] => "SOCKS",
        [_, _, _, _, _, _, _, _, _, _, _, _, 0xD4 | 0xDD, 0x07, 0, 0, ..] => "MongoDB",
        [_, _, _, b'I', b'N', b'F', b'O', ..] => "NATS",
        _ if first.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "text",
        _ => "binary",
    }
}

#[cfg(test)]
mod tests {
    use super::protocol;

    #[test]
    fn usual_protocols_are_known_by_their_first_bytes() {
        for (bytes, is) in [
            (&b""[..], "the client waits for the server"),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", "PostgreSQL"),
            (b"\0\0\0\x54\0\x03\0\0user", "PostgreSQL"),
            (b"*1\r\n$4\r\nPING\r\n", "Redis"),
            (b"SSH-2.0-x", "SSH"),
            (b"hello there\r\n", "text"),
            (b"\xff\xfe", "binary"),
        ] {
            assert_eq!(protocol(bytes), is, "{bytes:?}");
        }
    }
}
