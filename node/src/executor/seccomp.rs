//! The system calls that a task may make: what ordinary programs use, and nothing that reaches
//! the kernel's modules, mounts, keys, clocks or other processes' memory. What is not named is
//! refused with EPERM, so a call that a later kernel invents is refused too.

use libcontainer::oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};
use libcontainer::oci_spec::{OciSpecError, Result};
use nix::libc;

const ALLOWED: &str = "
    accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chroot
    clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup
    dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync
    fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex
    futex_requeue futex_wait futex_waitv futex_wake futimesat get_mempolicy get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr
    lseek lsetxattr lstat madvise map_shadow_stack mbind membarrier memfd_create memfd_secret
    mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
    ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr
    rename renameat renameat2 restart_syscall riscv_flush_icache rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    sendfile sendmmsg sendmsg sendto set_mempolicy set_robust_list set_thread_area set_tid_address
    setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid
    setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown
    sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate
    umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
";

/// `CLONE_NEW…` of every namespace.
const NEW_NAMESPACES: u64 = 0x7e02_0080;

/// The profile.
pub fn profile() -> Result<LinuxSeccomp> {
    let names: Vec<String> = ALLOWED.split_ascii_whitespace().map(str::to_owned).collect();
    let mut rules = vec![
        LinuxSyscallBuilder::default().names(names).action(Action::ScmpActAllow).build()?,
        // Threads and processes, but no namespaces. The library takes the mask from `value_two`.
        allow_if("clone", Operator::ScmpCmpMaskedEq, 0, Some(NEW_NAMESPACES))?,
        // Its flags lie in memory where no filter sees them: ENOSYS sends libraries to `clone`.
        LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(Action::ScmpActErrno)
            .errno_ret(libc::ENOSYS as u32)
            .build()?,
    ];
    // Every family but AF_ALG, the kernel's own cryptography, and AF_VSOCK, the hypervisor's door.
    let families = [(Operator::ScmpCmpLt, libc::AF_ALG), (Operator::ScmpCmpGt, libc::AF_VSOCK)];
    for (operator, family) in families {
        rules.push(allow_if("socket", operator, family as u64, None)?);
    }
    rules.push(allow_if("socket", Operator::ScmpCmpEq, 39, None)?);
    // The execution domains that change nothing about what is allowed, and the question for it.
    for domain in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(allow_if("personality", Operator::ScmpCmpEq, domain, None)?);
    }
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(vec![Arch::ScmpArchNative])
        .syscalls(rules)
        .build()
}

fn allow_if(
    name: &str,
    operator: Operator,
    value: u64,
    value_two: Option<u64>,
) -> std::result::Result<LinuxSyscall, OciSpecError> {
    let mut argument = LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(operator);
    if let Some(value_two) = value_two {
        argument = argument.value_two(value_two);
    }
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(Action::ScmpActAllow)
        .args(vec![argument.build()?])
        .build()
}
