# The built-in profile: what a container may call when nothing else was said. What is not named fails with EPERM.
# The choice is that of Docker's default profile (as of 2026: no io_uring, no AF_ALG or AF_VSOCK sockets), but for
# socketcall: its way to make a socket of any family, behind a pointer, is closed here and not left to an AppArmor profile.
#
#   allow NAME...                    always
#   allow-with CAP NAME...           when the container has the capability
#   enosys NAME...                   fails with ENOSYS, so that a C library falls back
#   enosys-without CAP NAME...       the same, when the container lacks the capability
#   allow-when CONDITION NAME        when the argument fits; several lines are alternatives
#   allow-when-without CAP CONDITION NAME
#
# CONDITION is INDEX==VALUE, INDEX<VALUE or INDEX&MASK==VALUE. There is one entry per architecture's own name;
# names that an architecture lacks are skipped there.

allow _llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64
allow arm_sync_file_range bind breakpoint brk cacheflush cachestat capget capset chdir chmod chown
allow chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
allow clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
allow copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
allow epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
allow exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod
allow fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
allow fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
allow ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
allow get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
allow geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
allow getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage
allow getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat
allow inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
allow io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
allow ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
allow lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek
allow lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore
allow mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr
allow mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
allow mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
allow name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal
allow pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv
allow preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64
allow ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom
allow recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
allow renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
allow rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
allow sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
allow sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
allow sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
allow semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
allow set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid
allow setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
allow setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
allow setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
allow sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount statx
allow symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create
allow timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
allow timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
allow truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
allow utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev

allow-with SYS_ADMIN bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick
allow-with SYS_ADMIN lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr
allow-with SYS_ADMIN mount mount_setattr move_mount open_tree open_tree_attr
allow-with SYS_ADMIN perf_event_open quotactl quotactl_fd setdomainname sethostname setns
allow-with SYS_ADMIN syslog umount umount2 unshare
allow-with DAC_READ_SEARCH open_by_handle_at
allow-with SYS_BOOT reboot
allow-with SYS_CHROOT chroot
allow-with SYS_MODULE delete_module finit_module init_module
allow-with SYS_PACCT acct
allow-with SYS_PTRACE kcmp pidfd_getfd process_madvise
allow-with SYS_RAWIO ioperm iopl
allow-with SYS_TIME clock_settime clock_settime64 settimeofday stime
allow-with SYS_TTY_CONFIG vhangup
allow-with SYS_NICE get_mempolicy mbind set_mempolicy set_mempolicy_home_node
allow-with SYSLOG syslog
allow-with BPF bpf
allow-with PERFMON perf_event_open

# clone3 passes its flags behind a pointer that no filter can follow; without it glibc uses clone.
enosys-without SYS_ADMIN clone3
# Younger than the profile: an unknown call is better than a forbidden one.
enosys file_getattr file_setattr

# No new namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET are clear.
allow-when-without SYS_ADMIN 0&0x7e020000==0 clone

# PER_LINUX, PER_LINUX32, each with UNAME26, and the query.
allow-when 0==0x0 personality
allow-when 0==0x8 personality
allow-when 0==0x20000 personality
allow-when 0==0x20008 personality
allow-when 0==0xffffffff personality

# Old i386 programs reach the calls below by socketcall, whose first argument says which; each of those allowed by its
# name is allowed there too. To make a socket is not: no filter can see of which family. C libraries of Linux 4.3 and
# later call socket itself.
# Address families: without DECnet, Econet, ATM's signalling, IrDA, WANPIPE, ISDN, CAIF, AF_ALG, AF_VSOCK, and none unknown.
allow-when 0<12 socket
allow-when 0==13 socket
allow-when 0==14 socket
allow-when 0==15 socket
allow-when 0==16 socket
allow-when 0==17 socket
allow-when 0==18 socket
allow-when 0==21 socket
allow-when 0==22 socket
allow-when 0==24 socket
allow-when 0==26 socket
allow-when 0==27 socket
allow-when 0==28 socket
allow-when 0==29 socket
allow-when 0==30 socket
allow-when 0==31 socket
allow-when 0==32 socket
allow-when 0==33 socket
allow-when 0==35 socket
allow-when 0==36 socket
allow-when 0==39 socket
allow-when 0==41 socket
allow-when 0==42 socket
allow-when 0==43 socket
allow-when 0==44 socket
allow-when 0==45 socket
