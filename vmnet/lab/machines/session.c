/* session COMMAND...: runs COMMAND, and ends it when the ssh session that started it closes.
 *
 * sshd does not end a program whose client has gone. This one polls its standard output: when the reader has gone, the command
 * gets SIGTERM, and SIGKILL five seconds later. Exit code: the command's, or 128 + the number of the signal that ended it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_MS 5000

static void end(pid_t child, int signal_number)
{
    if (kill(-child, signal_number) && errno == ESRCH)
        kill(child, signal_number);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: session COMMAND...\n");
        return 2;
    }
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return 125;
    }
    if (child == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(125);
        execvp(argv[1], argv + 1);
        fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    setpgid(child, child);
    close(0);
    signal(SIGPIPE, SIG_IGN);
    int ended = (int)syscall(SYS_pidfd_open, child, 0);
    if (ended >= 0) {
        struct pollfd watched[2] = {{.fd = ended, .events = POLLIN}, {.fd = 1, .events = 0}};
        while (poll(watched, 2, -1) < 0 && errno == EINTR)
            ;
        if (!watched[0].revents) {
            end(child, SIGTERM);
            if (poll(watched, 1, GRACE_MS) == 0)
                end(child, SIGKILL);
        }
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return 125;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
