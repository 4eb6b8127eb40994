package ctl

import (
	"context"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
)

// completes has the shell complete the first argument of a call with what the
// gateway knows: words, each with a tab and what it means.
func (a *app) completes(c *cobra.Command, words func(context.Context, *client.Client) ([]string, error)) *cobra.Command {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		api, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer api.Close()
		list, err := words(c.Context(), api)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// names makes words of a list.
func names[T any](ctx context.Context, list func(context.Context) ([]T, error), word func(T) (name, meaning string)) ([]string, error) {
	all, err := list(ctx)
	if err != nil {
		return nil, err
	}
	words := make([]string, len(all))
	for i, v := range all {
		name, meaning := word(v)
		words[i] = table.Clean(name) + "\t" + table.Clean(meaning)
	}
	return words, nil
}
