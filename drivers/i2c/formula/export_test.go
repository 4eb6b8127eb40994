package formula

import (
	"fmt"
	"strings"
)

// Tree writes a formula with a bracket around each operation.
func Tree(text string) (string, error) {
	n, err := parse(text)
	if err != nil {
		return "", err
	}
	return n.tree(), nil
}

func (n *node) tree() string {
	var parts []string
	for _, a := range n.args {
		parts = append(parts, a.tree())
	}
	switch n.kind {
	case literalNode:
		return fmt.Sprint(n.value)
	case truthNode:
		return fmt.Sprint(n.value != 0)
	case nameNode:
		return n.name
	case choiceNode:
		return "(? " + strings.Join(parts, " ") + ")"
	case indexNode:
		return "([] " + n.name + " " + parts[0] + ")"
	}
	return "(" + n.name + " " + strings.Join(parts, " ") + ")"
}
