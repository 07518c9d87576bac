//! Which devices the processes of a cgroup may open, where the machine has version 2 of cgroups alone: there the kernel
//! asks a small program (`BPF_PROG_TYPE_CGROUP_DEVICE`; `linux/bpf.h` has the layouts). The container library would do
//! it with a library in C that takes others and their headers to build; what it comes to is a list of comparisons.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use nix::errno::Errno;
use nix::libc;

const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MAKE | READ | WRITE;
/// The most instructions that the kernel takes of whoever is not its administrator, and more than any task needs.
const INSTRUCTIONS_MAX: usize = 4_096;

/// What may be done with some devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    /// `None`: all.
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

const fn usual(major: i32, minor: Option<i32>) -> Rule {
    Rule { kind: Some(CHAR), major: Some(major), minor, access: ALL }
}

/// What every task may: make device files, which are of no use to it, and use those that a container has: null, zero,
/// full, random, urandom, tty, console, ptmx and pts.
const USUAL: [Rule; 11] = [
    Rule { kind: Some(CHAR), major: None, minor: None, access: MAKE },
    Rule { kind: Some(BLOCK), major: None, minor: None, access: MAKE },
    usual(1, Some(3)),
    usual(1, Some(5)),
    usual(1, Some(7)),
    usual(1, Some(8)),
    usual(1, Some(9)),
    usual(5, Some(0)),
    usual(5, Some(1)),
    usual(5, Some(2)),
    usual(136, None),
];

/// Lets the processes of a cgroup use the usual devices and those of the rules, which allow; all others are refused.
/// `cgroup`: its folder.
pub fn attach(cgroup: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let own = rules.iter().filter(|rule| rule.allow()).map(read);
    let rules: Vec<Rule> = USUAL.into_iter().chain(own).collect();
    let program = load(&assemble(&rules))?;
    let folder = File::open(cgroup)?;
    let attributes = Attach {
        target_fd: folder.as_raw_fd() as u32,
        program_fd: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attributes).map(drop)
}

fn read(rule: &LinuxDeviceCgroup) -> Rule {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
        _ => None,
    };
    let number =
        |number: Option<i64>| number.filter(|number| *number >= 0).and_then(|number| i32::try_from(number).ok());
    let bits = |word: &str| {
        let bit = |letter, bit| if word.contains(letter) { bit } else { 0 };
        bit('m', MAKE) | bit('r', READ) | bit('w', WRITE)
    };
    let access = rule.access().as_deref().map_or(ALL, bits);
    Rule { kind, major: number(rule.major()), minor: number(rule.minor()), access }
}

/// One instruction: its code, its registers, where it jumps to, and a constant.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    constant: i32,
}

const fn with(code: u8, to: u8, from: u8, offset: i16, constant: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, constant }
}

const LOAD_WORD: u8 = 0x61;
const SET: u8 = 0xb7;
const COPY: u8 = 0xbf;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const UNLESS_EQUAL: u8 = 0x55;
const UNLESS_SAME: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The registers of what is asked: the kernel's words on it, and what they come to.
const ASKED: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const MASKED: u8 = 6;

fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    // What is asked: `access << 16 | kind`, major, minor; a word each.
    let mut program = vec![
        with(LOAD_WORD, KIND, ASKED, 0, 0),
        with(AND, KIND, 0, 0, 0xffff),
        with(LOAD_WORD, ACCESS, ASKED, 0, 0),
        with(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        with(LOAD_WORD, MAJOR, ASKED, 4, 0),
        with(LOAD_WORD, MINOR, ASKED, 8, 0),
    ];
    for rule in rules {
        let mut checks = Vec::new();
        let numbers = [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)];
        checks.extend(numbers.into_iter().filter_map(|(at, is)| Some(with(UNLESS_EQUAL, at, 0, 0, is?))));
        if rule.access != ALL {
            checks.push(with(COPY, MASKED, ACCESS, 0, 0));
            checks.push(with(AND, MASKED, 0, 0, rule.access));
            checks.push(with(UNLESS_SAME, MASKED, ACCESS, 0, 0));
        }
        // Past the rest of the checks, and the two by which it is allowed.
        let count = checks.len();
        for (at, check) in
            checks.iter_mut().enumerate().filter(|(_, check)| [UNLESS_EQUAL, UNLESS_SAME].contains(&check.code))
        {
            check.offset = (count - at + 1) as i16;
        }
        program.extend(checks);
        program.extend([with(SET, 0, 0, 0, 1), with(EXIT, 0, 0, 0, 0)]);
    }
    program.extend([with(SET, 0, 0, 0, 0), with(EXIT, 0, 0, 0, 0)]);
    program
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
/// The kind of the program,
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// and of what it is attached as, beside what others have attached.
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    kind: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    if program.len() > INSTRUCTIONS_MAX {
        return Err(io::Error::other(format!("{} rules on devices are too many", program.len())));
    }
    let license = c"Apache-2.0";
    let attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just given it, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are as this command takes them, of the size that is said, and what they point to lives.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    Ok(Errno::result(done)? as i32)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use libcontainer::oci_spec::runtime::LinuxDeviceCgroupBuilder;
    use nix::mount::{MsFlags, mount, umount};

    use super::*;

    /// What a program answers, as the kernel runs it.
    fn run(program: &[Instruction], kind: i32, access: i32, (major, minor): (i32, i32)) -> bool {
        let (mut registers, mut at) = ([0_i64; 11], 0);
        let asked = [access << 16 | kind, major, minor];
        loop {
            let Instruction { code, registers: names, offset, constant } = program[at];
            let (to, from) = (usize::from(names & 15), usize::from(names >> 4));
            at += 1;
            match code {
                LOAD_WORD => registers[to] = i64::from(asked[offset as usize / 4]),
                SET => registers[to] = i64::from(constant),
                COPY => registers[to] = registers[from],
                AND => registers[to] &= i64::from(constant),
                SHIFT_RIGHT => registers[to] >>= constant,
                UNLESS_EQUAL if registers[to] != i64::from(constant) => at += offset as usize,
                UNLESS_SAME if registers[to] != registers[from] => at += offset as usize,
                UNLESS_EQUAL | UNLESS_SAME => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn rule(kind: LinuxDeviceType, numbers: (i64, i64), access: &str) -> LinuxDeviceCgroup {
        let built = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(numbers.0).minor(numbers.1);
        built.access(access).build().unwrap()
    }

    #[test]
    fn nothing_but_the_usual_and_what_is_allowed_is_opened() {
        let refusal = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().unwrap();
        let own = [rule(LinuxDeviceType::B, (8, 1), "r"), rule(LinuxDeviceType::C, (195, -1), "rw")];
        assert!(!refusal.allow());
        let rules: Vec<Rule> = USUAL.into_iter().chain(own.iter().map(read)).collect();
        let program = assemble(&rules);
        for (kind, access, numbers, opens) in [
            (CHAR, READ | WRITE, (1, 3), true),
            (CHAR, READ | WRITE | MAKE, (136, 7), true),
            (CHAR, READ, (1, 11), false),
            (CHAR, WRITE, (1, 1), false),
            (BLOCK, READ, (1, 3), false),
            (BLOCK, MAKE, (8, 0), true),
            (BLOCK, MAKE | READ, (8, 0), false),
            (BLOCK, READ, (8, 1), true),
            (BLOCK, READ | WRITE, (8, 1), false),
            (BLOCK, READ, (8, 2), false),
            (CHAR, READ | WRITE, (195, 255), true),
            (CHAR, READ, (196, 255), false),
            (CHAR, READ, (10, 200), false),
        ] {
            assert_eq!(run(&program, kind, access, numbers), opens, "{kind} {access} {numbers:?}");
        }
    }

    /// A hierarchy of version 2 beside whatever the machine has, with one cgroup.
    struct Hierarchy(tempfile::TempDir);

    impl Hierarchy {
        fn make() -> Self {
            let at = tempfile::tempdir().unwrap();
            mount(Some("none"), at.path(), Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
            let hierarchy = Self(at);
            fs::create_dir(hierarchy.cgroup()).unwrap();
            hierarchy
        }

        fn cgroup(&self) -> std::path::PathBuf {
            self.0.path().join(format!("rialto-test-devices-{}", std::process::id()))
        }
    }

    impl Drop for Hierarchy {
        fn drop(&mut self) {
            fs::remove_dir(self.cgroup()).unwrap();
            umount(self.0.path()).unwrap();
        }
    }

    #[test]
    fn the_kernel_takes_it_and_keeps_to_it() {
        if let Err(reason) = crate::executor::probe() {
            eprintln!("skipped: {reason}");
            return;
        }
        let hierarchy = Hierarchy::make();
        attach(&hierarchy.cgroup(), &[rule(LinuxDeviceType::C, (1, 11), "r")]).unwrap();
        // The kernel's log may be read, as was allowed, and not written to; memory not even opened.
        let look = "echo $$ > \"$0/cgroup.procs\"; head -c 1 /dev/zero | wc -c; mknod \"$1/log\" c 1 11; \
                    (: < \"$1/log\") && echo read; (: > \"$1/log\") || echo no; \
                    mknod \"$1/mem\" c 1 1 && echo made; (: < \"$1/mem\") || echo no";
        let folder = tempfile::Builder::new().tempdir_in("/dev").unwrap();
        let said = Command::new("sh").args(["-c", look]).arg(hierarchy.cgroup()).arg(folder.path()).output().unwrap();
        let refused = String::from_utf8_lossy(&said.stderr).matches("Operation not permitted").count();
        assert_eq!(
            (String::from_utf8_lossy(&said.stdout).as_ref(), refused),
            ("1\nread\nno\nmade\nno\n", 2),
            "{said:?}"
        );
    }
}
