/* Rules on standard input, libseccomp's filter for them on standard output, unknown names on standard error.
 *   default ACTION | arch TOKEN | rule ACTION NAME COUNT { INDEX OP A B }...   (numbers as strtoull reads them) */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
	char word[16], name[64];
	uint64_t action;
	scmp_filter_ctx filter = NULL;

	while (scanf("%15s", word) == 1) {
		if (strcmp(word, "default") == 0) {
			if (scanf("%" SCNi64, &action) != 1 || !(filter = seccomp_init(action)))
				return 2;
			if (seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS))
				return 3;
		} else if (strcmp(word, "arch") == 0) {
			if (scanf("%" SCNi64, &action) != 1)
				return 4;
			int added = seccomp_arch_add(filter, action);
			if (added && added != -EEXIST)
				return 5;
		} else {
			struct scmp_arg_cmp args[6];
			unsigned count, index, op;

			if (scanf("%" SCNi64 " %63s %u", &action, name, &count) != 3 || count > 6)
				return 6;
			for (unsigned i = 0; i < count; i++) {
				if (scanf("%u %u %" SCNi64 " %" SCNi64, &index, &op, &args[i].datum_a, &args[i].datum_b) != 4)
					return 7;
				args[i].arg = index;
				args[i].op = op;
			}
			int number = seccomp_syscall_resolve_name(name);
			if (number == __NR_SCMP_ERROR) {
				fprintf(stderr, "%s\n", name);
				continue;
			}
			int added = seccomp_rule_add_array(filter, action, number, count, args);
			if (added && added != -EEXIST && added != -EACCES) {
				fprintf(stderr, "rule for %s: error %d\n", name, added);
				return 8;
			}
		}
	}
	return filter && seccomp_export_bpf(filter, 1) == 0 ? 0 : 9;
}
