//! SMTP (RFC 5321), as far as it takes to be given a mail: it is taken, counted, and goes nowhere.

use std::io::{self, BufRead, BufReader, Read, Write};

/// The longest line of a command; an initial response of AUTH may be long.
const LONGEST_LINE: u64 = 16 * 1024;
/// The most bytes of a mail: what servers usually take.
const LONGEST_MAIL: u64 = 64 << 20;
/// Headers are read for their subject, so far.
const HEADER_BYTES: usize = 64 * 1024;
/// Commands of one session, the most recipients of one mail, and mails.
const COMMANDS: usize = 2000;
const RECIPIENTS: usize = 1000;
/// Errors after which a client is let go.
const ERRORS: usize = 20;

/// A mail that was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    /// The sender of the envelope.
    pub sender: String,
    /// The recipients of the envelope.
    pub recipients: Vec<String>,
    /// The subject, as it stands in the header.
    pub subject: Option<String>,
    /// Bytes of the mail.
    pub bytes: u64,
    /// Whether it came to its end.
    pub complete: bool,
}

/// Serves one session; every mail is handed over as it ends. A mail that breaks off is handed over too.
pub fn serve<S: Read + Write>(stream: S, mut taken: impl FnMut(Mail)) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    say(&mut stream, "220 staging ESMTP (nothing is delivered)")?;
    let mut mail = Mail::default();
    let (mut errors, mut authenticating) = (0, 0);
    for _ in 0..COMMANDS {
        let Some(line) = line(&mut stream)? else { break };
        if authenticating > 0 {
            // User name and password: never kept.
            authenticating -= 1;
            let next = if authenticating > 0 { "334 UGFzc3dvcmQ6" } else { "235 2.7.0 accepted" };
            say(&mut stream, next)?;
            continue;
        }
        let upper = line.to_ascii_uppercase();
        let word = upper.split([' ', ':']).next().unwrap_or_default();
        let reply = match word {
            "EHLO" => {
                say(
                    &mut stream,
                    "250-staging\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 67108864\r\n250-PIPELINING",
                )?;
                "250 AUTH PLAIN LOGIN"
            }
            "HELO" => "250 staging",
            "AUTH" => {
                let mut words = upper.split_whitespace().skip(1);
                match (words.next(), words.next()) {
                    (Some("LOGIN"), None) => {
                        authenticating = 2;
                        "334 VXNlcm5hbWU6"
                    }
                    (Some("LOGIN"), Some(_)) => {
                        authenticating = 1;
                        "334 UGFzc3dvcmQ6"
                    }
                    (Some("PLAIN"), None) => {
                        authenticating = 1;
                        "334 "
                    }
                    (Some("PLAIN"), Some(_)) => "235 2.7.0 accepted",
                    _ => "504 5.5.4 use PLAIN or LOGIN",
                }
            }
            "MAIL" => {
                mail = Mail { sender: address(&line), ..Mail::default() };
                "250 2.1.0 taken"
            }
            "RCPT" if mail.recipients.len() < RECIPIENTS => {
                mail.recipients.push(address(&line));
                "250 2.1.5 taken"
            }
            "RCPT" => "452 4.5.3 too many recipients",
            "DATA" if mail.recipients.is_empty() => "503 5.5.1 RCPT first",
            "DATA" => {
                say(&mut stream, "354 end with a dot")?;
                let ended = data(&mut stream, &mut mail);
                taken(std::mem::take(&mut mail));
                ended?;
                "250 2.0.0 taken; it goes nowhere"
            }
            "RSET" => {
                mail = Mail::default();
                "250 2.0.0"
            }
            "NOOP" => "250 2.0.0",
            "VRFY" => "252 2.1.5",
            "QUIT" => {
                say(&mut stream, "221 2.0.0")?;
                break;
            }
            _ => {
                errors += 1;
                if errors > ERRORS {
                    break;
                }
                "502 5.5.1 not known here"
            }
        };
        say(&mut stream, reply)?;
    }
    if !mail.recipients.is_empty() {
        taken(mail); // it named its recipients and went away
    }
    Ok(())
}

fn say<S: Read + Write>(stream: &mut BufReader<S>, text: &str) -> io::Result<()> {
    stream.get_mut().write_all(format!("{text}\r\n").as_bytes())?;
    stream.get_mut().flush()
}

/// A line without its end; `None` at the end of the connection.
fn line<S: Read>(stream: &mut BufReader<S>) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let got = stream.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if got == 0 || !bytes.ends_with(b"\n") {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned()))
}

/// What stands between `<` and `>`, else the word behind the colon.
fn address(line: &str) -> String {
    let rest = line.split_once(':').map_or("", |(_, rest)| rest).trim();
    match rest.split_once('<').and_then(|(_, r)| r.split_once('>')) {
        Some((address, _)) => address.to_owned(),
        None => rest.split_whitespace().next().unwrap_or_default().to_owned(),
    }
}

fn data<S: Read>(stream: &mut BufReader<S>, mail: &mut Mail) -> io::Result<()> {
    let mut header = Vec::new();
    let (mut in_header, mut at_start) = (true, true);
    loop {
        let mut bytes = Vec::new();
        let got = stream.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
        let ended = at_start && (bytes == b".\r\n" || bytes == b".\n");
        if got == 0 || ended {
            mail.complete = ended;
            mail.subject = subject(&header);
            return if ended { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        mail.bytes += got as u64;
        if mail.bytes > LONGEST_MAIL {
            mail.subject = subject(&header);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the mail is too long"));
        }
        if in_header && at_start && (bytes == b"\r\n" || bytes == b"\n") {
            in_header = false;
        }
        if in_header && header.len() < HEADER_BYTES {
            header.extend_from_slice(&bytes);
        }
        at_start = bytes.ends_with(b"\n");
    }
}

fn subject(header: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(header);
    let mut lines = text.lines();
    let first = lines.find(|l| l.get(..8).is_some_and(|name| name.eq_ignore_ascii_case("subject:")))?;
    let mut subject = first.get(8..).unwrap_or_default().trim().to_owned();
    for more in lines.take_while(|l| l.starts_with([' ', '\t'])) {
        subject.push(' ');
        subject.push_str(more.trim());
    }
    Some(subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads what a client says, keeps what it is told.
    struct Talk<'a>(&'a [u8], Vec<u8>);
    impl Read for Talk<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Talk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn session(client: &[u8]) -> (Vec<Mail>, String) {
        let mut talk = Talk(client, Vec::new());
        let mut mails = Vec::new();
        let _ = serve(&mut talk, |m| mails.push(m));
        (mails, String::from_utf8_lossy(&talk.1).into_owned())
    }

    #[test]
    fn a_mail_is_taken_with_sender_recipients_and_subject() {
        let (mails, told) = session(
            b"EHLO app\r\nAUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\nMAIL FROM:<a@b.c> SIZE=1\r\nRCPT TO:<x@y.z>\r\nRCPT TO: w@y.z\r\nDATA\r\nTo: x\r\nsubject: Hello\r\n there\r\n\r\nSubject: not this\r\n..\r\n.\r\nQUIT\r\n",
        );
        assert_eq!(mails.len(), 1, "{told}");
        assert_eq!((mails[0].sender.as_str(), mails[0].complete), ("a@b.c", true));
        assert_eq!(mails[0].recipients, ["x@y.z", "w@y.z"]);
        assert_eq!(mails[0].subject.as_deref(), Some("Hello there"));
        assert!(told.ends_with("221 2.0.0\r\n") && !told.contains("STARTTLS"), "{told}");
    }

    #[test]
    fn a_mail_that_breaks_off_is_told_too() {
        let (mails, _) = session(b"HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nDATA\r\nSubject: s\r\n");
        assert_eq!((mails.len(), mails[0].complete, mails[0].subject.as_deref()), (1, false, Some("s")));
        let (mails, _) = session(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\n");
        assert_eq!(mails.len(), 1);
    }

    #[test]
    fn hostile_clients_are_let_go() {
        let (mails, told) = session(&b"X\r\n".repeat(1000));
        assert!(mails.is_empty() && told.matches("502").count() == ERRORS, "{}", told.len());
        let (mails, _) = session(&[b'a'; 100_000]);
        assert!(mails.is_empty());
        let mut flood = b"MAIL FROM:<a@b>\r\n".to_vec();
        flood.extend(b"RCPT TO:<x@y>\r\n".repeat(5000));
        assert_eq!(session(&flood).0.first().map(|m| m.recipients.len()), Some(RECIPIENTS));
        let mut endless = Vec::from(*b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nDATA\r\nSubject: ");
        endless.extend(vec![b's'; 1 << 20]);
        let (mails, _) = session(&endless);
        assert!(mails[0].subject.as_ref().is_some_and(|s| s.len() <= 2 * HEADER_BYTES));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = session(&bytes);
            let mut mail = b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n".to_vec();
            mail.extend(bytes);
            prop_assert_eq!(session(&mail).0.len(), 1);
        }
    }
}
