package model

import (
	"encoding/json"
	"fmt"
	"os"
)

// ImageRole reads the role that an image was built for (paths.ImageInfo).
func ImageRole(file string) (Role, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("role of the image: %w", err)
	}
	var info struct {
		Role Role `json:"role"`
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return "", fmt.Errorf("%s: expected {\"role\": …}: %w", file, err)
	}
	if info.Role != RoleGateway && info.Role != RoleNode {
		return "", fmt.Errorf("%s: role: expected gateway or node, got %q", file, info.Role)
	}
	return info.Role, nil
}
