//! Where the keys of a command are, and whether it only reads.

use crate::Error;
use crate::proto::{Command, slot};

/// The slot of a command's keys; `None` for one without keys, which any node may run.
pub(super) fn slot_of(command: &Command) -> Result<Option<u16>, Error> {
    let arguments: Vec<&[u8]> = command.arguments().collect();
    let mut slots = keys_of(&arguments).into_iter().map(slot);
    let Some(first) = slots.next() else { return Ok(None) };
    if slots.any(|other| other != first) {
        return Err(Error::Misuse("all keys of a command must be in the same slot".into()));
    }
    Ok(Some(first))
}

/// The keys of a command, given with its name. Of commands that are not known the first argument is the key.
fn keys_of<'a>(arguments: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let Some((name, rest)) = arguments.split_first() else { return Vec::new() };
    let counted = |at: usize| -> Vec<&'a [u8]> {
        let count = rest.get(at).and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
        rest.iter().skip(at + 1).take(count.unwrap_or(0)).copied().collect()
    };
    match &*name.to_ascii_uppercase() {
        b"ACL" | b"BGSAVE" | b"CLIENT" | b"CLUSTER" | b"COMMAND" | b"CONFIG" | b"DBSIZE" | b"ECHO"
        | b"FLUSHALL" | b"FLUSHDB" | b"FUNCTION" | b"INFO" | b"KEYS" | b"LATENCY" | b"PING" | b"PUBLISH"
        | b"RANDOMKEY" | b"ROLE" | b"SCAN" | b"SCRIPT" | b"SLOWLOG" | b"TIME" | b"WAIT" => Vec::new(),
        b"DEL" | b"EXISTS" | b"MGET" | b"PFCOUNT" | b"PFMERGE" | b"SDIFF" | b"SDIFFSTORE" | b"SINTER"
        | b"SINTERSTORE" | b"SUNION" | b"SUNIONSTORE" | b"TOUCH" | b"UNLINK" | b"WATCH" => rest.to_vec(),
        b"BLPOP" | b"BRPOP" | b"BZPOPMAX" | b"BZPOPMIN" => rest[..rest.len().saturating_sub(1)].to_vec(),
        b"MSET" | b"MSETNX" => rest.iter().step_by(2).copied().collect(),
        b"BLMOVE" | b"BLMOVEM" | b"BRPOPLPUSH" | b"COPY" | b"GEOSEARCHSTORE" | b"LMOVE" | b"LMOVEM"
        | b"RENAME" | b"RENAMENX" | b"RPOPLPUSH" | b"SMOVE" | b"ZRANGESTORE" => {
            rest.iter().take(2).copied().collect()
        }
        b"EVAL" | b"EVALSHA" | b"EVALSHA_RO" | b"EVAL_RO" | b"FCALL" | b"FCALL_RO" | b"BLMPOP"
        | b"BZMPOP" => counted(1),
        b"LMPOP" | b"SINTERCARD" | b"ZDIFF" | b"ZINTER" | b"ZINTERCARD" | b"ZMPOP" | b"ZUNION" => counted(0),
        b"ZDIFFSTORE" | b"ZINTERSTORE" | b"ZUNIONSTORE" => {
            rest.iter().take(1).copied().chain(counted(1)).collect()
        }
        b"BITOP" => rest.iter().skip(1).copied().collect(),
        b"MEMORY" | b"OBJECT" | b"XGROUP" | b"XINFO" => rest.iter().skip(1).take(1).copied().collect(),
        b"XREAD" | b"XREADGROUP" => {
            let streams = rest.iter().position(|word| word.eq_ignore_ascii_case(b"STREAMS"));
            let streams = streams.map_or(&[][..], |at| &rest[at + 1..]);
            streams[..streams.len() / 2].to_vec()
        }
        _ => rest.iter().take(1).copied().collect(),
    }
}

/// Whether a replica may run a command.
pub(super) fn only_reads(command: &Command) -> bool {
    matches!(
        &*command.name().to_ascii_uppercase(),
        b"BITCOUNT"
            | b"BITPOS"
            | b"DUMP"
            | b"EXISTS"
            | b"GET"
            | b"GETBIT"
            | b"GETRANGE"
            | b"HEXISTS"
            | b"HGET"
            | b"HGETALL"
            | b"HKEYS"
            | b"HLEN"
            | b"HMGET"
            | b"HSCAN"
            | b"HVALS"
            | b"LINDEX"
            | b"LLEN"
            | b"LPOS"
            | b"LRANGE"
            | b"MGET"
            | b"PTTL"
            | b"SCARD"
            | b"SISMEMBER"
            | b"SMEMBERS"
            | b"SMISMEMBER"
            | b"SSCAN"
            | b"STRLEN"
            | b"TTL"
            | b"TYPE"
            | b"XLEN"
            | b"XRANGE"
            | b"XREVRANGE"
            | b"ZCARD"
            | b"ZCOUNT"
            | b"ZMSCORE"
            | b"ZRANGE"
            | b"ZRANK"
            | b"ZREVRANK"
            | b"ZSCAN"
            | b"ZSCORE"
    )
}

#[cfg(test)]
mod tests {
    use super::{keys_of, slot_of};
    use crate::proto::Command;

    #[test]
    fn keys_are_found_where_each_command_has_them() {
        for (command, keys) in [
            ("GET a", "a"),
            ("PING", ""),
            ("mset a 1 b 2", "a b"),
            ("DEL a b", "a b"),
            ("EVAL script 2 a b c", "a b"),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"),
            ("XREADGROUP GROUP g c COUNT 1 STREAMS a b > >", "a b"),
            ("BLPOP a b 0", "a b"),
            ("BITOP AND d a b", "d a b"),
            ("OBJECT ENCODING a", "a"),
            ("EVAL script none", ""),
        ] {
            let words: Vec<_> = command.split(' ').map(str::as_bytes).collect();
            let expected: Vec<_> = keys.split(' ').filter(|key| !key.is_empty()).map(str::as_bytes).collect();
            assert_eq!(keys_of(&words), expected, "{command}");
        }
    }

    #[test]
    fn keys_in_several_slots_are_refused() {
        assert!(slot_of(&Command::new("MGET").arg("a").arg("b")).is_err());
        assert!(slot_of(&Command::new("MGET").arg("{x}a").arg("{x}b")).is_ok());
    }
}
